"""Heads on cached embeddings: fitting, selection, calibration, statistics, runs, reports."""
