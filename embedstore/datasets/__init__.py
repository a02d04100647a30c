"""A tree or table on disk -> records and tasks."""
