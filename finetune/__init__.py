"""Escalation: images, encoder and head as one trainable module, when a head alone is not enough."""
