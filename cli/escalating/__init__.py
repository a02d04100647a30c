"""``embed escalate``: whether a run is worth fine-tuning its encoder, asked, answered and printed."""
