"""Token grids beside the vectors: which tokens an identity names, and the matrix that projects them."""
