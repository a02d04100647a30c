"""Vectors handed on to other tools, and vectors that other tools have made taken in."""
