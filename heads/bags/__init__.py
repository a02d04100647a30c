"""Gated attention over the images of a unit: the network, its start at mean pooling, and its batched training."""
