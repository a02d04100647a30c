"""Vectors on disk: layout, commit, read, verify, repair, export."""
