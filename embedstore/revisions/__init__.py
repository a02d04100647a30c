"""A data set's facts about rows that a store holds already, taken over anew: never half, never under a stale vector."""
