"""What stored values are and mean: bits of a word, lookup tables, windows, padding, units."""
