"""``embed localise``: its options, and what is printed of the errors."""
