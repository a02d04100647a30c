"""Images decoded in processes that may die: jobs, workers, limits."""
