"""Several heads' answers to one question -> one: their weights, and the probe of their blend."""
