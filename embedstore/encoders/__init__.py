"""Pixels into vectors."""
