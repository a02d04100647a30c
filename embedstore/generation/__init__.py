"""Answers that a generative model writes about studies: their slices, its prompt, its words, and what stands behind them."""
