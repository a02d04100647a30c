"""``embed localise``: its options, its job, and what is printed of the errors."""
