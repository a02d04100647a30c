"""Records into vectors, one whole chunk after the other; nothing is kept here."""
