"""Encoders and heads in one table: runs against a baseline, paired on the units that they have in common."""
