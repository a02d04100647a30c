"""Whether a probe is worth fine-tuning: goal, evidence, what it would cost, and the rule that decides."""
