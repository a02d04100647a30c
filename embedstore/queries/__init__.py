"""What is asked of a filled store: views for heads, similar images, thumbnails."""
