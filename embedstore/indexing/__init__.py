"""Lists of a large store's vectors, kept beside it: made once, changed with it, and never read from elsewhere."""
