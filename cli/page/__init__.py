"""``embed serve``: a page on this machine to drop images on, to look at similar cases, and at a map of the store."""
