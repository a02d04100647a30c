"""PNG, TIFF and other ordinary pictures: what their files hold, read without losing a bit."""
