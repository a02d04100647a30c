"""Data set layouts into manifests and tasks."""
