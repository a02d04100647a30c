"""Columns of labels -> tasks: which class is positive, findings in lists, 0 / 1 / -1, one label per unit."""
