"""A run in pictures and words."""
