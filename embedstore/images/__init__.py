"""Image files into exact pixels: readers, windowing, geometry, preprocessing, isolated decoding."""
