"""``embed compare``: encoders and heads in one table, parsed and printed."""
