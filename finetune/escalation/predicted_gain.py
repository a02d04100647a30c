"""How much fine-tuning has brought where it was simulated, as a share of what a probe lacks.

Nothing in a frozen probe says what the encoder would learn. What can be said is how much of the error that is left
(up to the ceiling that wrong labels set) was removed in simulated tasks whose vectors held something of the classes:
``benchmarks/escalation.py`` measures it, and docs/escalate.md has the table. These are phantoms and a tiny tower with
random weights, which has more to learn than a trained one: the upper end is an upper end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.escalation.goal import Goal

# Metric -> share of the error that was removed: the lowest tenth, the median and the highest tenth of the tasks.
SHARES: Mapping[str, tuple[float, float, float]] = {
    "auroc": (0.00, 0.87, 0.99),
    "kappa": (0.00, 0.76, 0.94),
    "log_loss": (0.00, 0.30, 0.75),
}


@dataclass(frozen=True, kw_only=True)
class PredictedGain:
    """What fine-tuning may bring, in the goal's metric; 0 or more.

    Parameters
    ----------
    low, middle, high
        The lowest tenth, the median and the highest tenth.
    headroom
        What is left up to the best value, or to the ceiling that wrong labels set.
    reached
        Values with these gains: low, middle and high.
    """

    low: float
    middle: float
    high: float
    headroom: float
    reached: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.__dict__, "reached": list(self.reached)}


def predicted_gain(goal: Goal, value: float, ceiling: float = np.nan) -> PredictedGain | None:
    """Return what fine-tuning may bring; None for a metric in which it was not simulated.

    Parameters
    ----------
    goal
        What is to be reached.
    value
        What the probe reached in its metric.
    ceiling
        What an answer that is always right would reach on these labels; NaN where nothing speaks of wrong ones.
    """
    if goal.metric not in SHARES or not np.isfinite(value):
        return None
    best = (1.0 if goal.sign > 0 else 0.0) if np.isnan(ceiling) else ceiling
    headroom = max(goal.sign * (best - value), 0.0)
    low, middle, high = (share * headroom for share in SHARES[goal.metric])
    return PredictedGain(
        low=low,
        middle=middle,
        high=high,
        headroom=headroom,
        reached=(goal.better_by(value, low), goal.better_by(value, middle), goal.better_by(value, high)),
    )
