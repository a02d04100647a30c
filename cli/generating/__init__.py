"""``embed generate``: answers of a generative model about the studies of a store."""
