"""Vectors -> the nearest of them by cosine, exactly: cheap scores propose with a proven bound, float64 decides."""
