"""The RSNA 2024 Lumbar Spine competition: its score with intervals, and its submission files."""
