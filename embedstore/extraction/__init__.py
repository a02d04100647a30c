"""A data set into a store: planned, computed here, on several devices or on a cluster, and checked."""
