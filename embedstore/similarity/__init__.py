"""Vectors -> the nearest of them by cosine, exactly: cheap scores propose with a proven bound, float64 decides.

From a million vectors on, lists propose; how often they miss is measured.
"""
