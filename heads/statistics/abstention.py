"""How much more often a head is right when it may leave its least sure answers to a person.

The units are ranked by the probability of their likeliest class, and the accuracy of the surest share of them
is stated with its interval (risk-coverage curve; El-Yaniv & Wiener 2010, JMLR 11:1605).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.scores import Floats
from heads.statistics.bootstrap import Draws, Estimate, estimate

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Answered:
    """What happens when only the surest units are answered.

    Parameters
    ----------
    share
        Share that was answered, from 0 to 1; with ties a little more than what was asked for.
    confidence
        Smallest probability of the likeliest class that was answered.
    accuracy
        Share of right answers among them.
    """

    share: float
    confidence: float
    accuracy: Estimate

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"share": self.share, "confidence": self.confidence, "accuracy": self.accuracy.to_json()}


def abstention_curve(
    y: npt.NDArray[np.int64], probabilities: Floats, draws: Draws, *, shares: tuple[float, ...] = SHARES
) -> tuple[Answered, ...]:
    """Return the accuracy of the surest answers, from all of them down.

    Parameters
    ----------
    y
        (n,) int64, every unit labelled.
    probabilities
        (n, n_classes) calibrated.
    draws
        Bootstrap draws of the same units. The bars are set once, on all of them.
    shares
        Wanted shares, above 0 and at most 1.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    falling = np.sort(confidence)[::-1]
    weights = draws.weights()
    return tuple(
        _answered(
            confidence,
            right,
            float(falling[max(1, round(share * len(y))) - 1]),
            weights,
            draws.patient_of_unit,
        )
        for share in shares
    )


def _answered(
    confidence: Floats,
    right: npt.NDArray[np.bool_],
    bar: float,
    weights: npt.NDArray[np.float32],
    patients: npt.NDArray[np.int64],
) -> Answered:
    # Equal confidences cannot be parted: all of them are answered.
    kept = confidence >= bar
    sums = (weights @ np.column_stack([kept & right, kept]).astype(np.float32)).astype(np.float64)
    drawn = np.full(len(weights), np.nan)
    np.divide(sums[:, 0], sums[:, 1], out=drawn, where=sums[:, 1] > 0)
    counted = len(np.unique(patients[kept]))
    accuracy = estimate(float(right[kept].mean()), drawn, n=int(kept.sum()), patients=counted)
    return Answered(float(kept.mean()), bar, accuracy)
