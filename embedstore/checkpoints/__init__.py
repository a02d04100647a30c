"""Weights on disk and on the hub: found, read by name and digested, without torch."""
