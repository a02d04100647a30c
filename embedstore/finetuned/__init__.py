"""Encoders that were fine-tuned here: their folder, the weights that changed, and whose images taught them."""
