"""Paths of another place -> files below a folder."""
