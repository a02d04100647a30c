"""What the tower sees: which images teach it, their pixels, their variations, and what frozen blocks make."""
