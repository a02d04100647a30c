"""Parts of slices around level points: which slices, where in them, and a data set's crops as its records."""
