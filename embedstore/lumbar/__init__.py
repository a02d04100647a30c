"""The lumbar spine as the RSNA 2024 competition names it: conditions, levels, targets, classes."""
