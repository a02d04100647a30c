"""Ways to run an extraction: on this machine, or on many."""
