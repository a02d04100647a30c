"""Answers that a generative model writes about studies: slices, prompt, words, and the probabilities behind them."""
