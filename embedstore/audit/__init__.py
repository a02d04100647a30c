"""What is wrong with a collection: copies, leaks across splits, images that are not what their rows say."""
