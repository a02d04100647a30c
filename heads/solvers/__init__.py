"""How heads are fitted: whole grids of problems at once."""
