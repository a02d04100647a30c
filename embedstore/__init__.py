"""Image collections into a store of embeddings, and the views and indices read from it."""
