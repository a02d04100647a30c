"""What acting on a probability is worth, against acting on everybody or on nobody.

Net benefit (Vickers & Elkin 2006, doi 10.1177/0272989X06295361): the share of true positives less the share of
false positives, these weighed by the odds of the threshold, which is where a reader who weighs harm so would
begin to act. Treating nobody is worth 0 at every threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.scores import Floats
from heads.statistics.bootstrap import Draws, Estimate, estimate

# Low thresholds are those of screening, where a step of 0.05 would be too coarse.
THRESHOLDS = (0.01, 0.02, *(round(0.05 * step, 2) for step in range(1, 20)))


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit by threshold.

    Parameters
    ----------
    thresholds
        Probabilities from which one acts.
    model
        Net benefit of acting on the probabilities.
    treat_all
        Net benefit of acting on every case.
    """

    thresholds: tuple[float, ...]
    model: tuple[Estimate, ...]
    treat_all: tuple[Estimate, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return one entry per threshold as plain JSON values; treating nobody is 0 and left out."""
        return [
            {"threshold": threshold, "net_benefit": model.to_json(), "treat_all": treat_all.to_json()}
            for threshold, model, treat_all in zip(self.thresholds, self.model, self.treat_all, strict=True)
        ]


def decision_curve(
    positive: npt.NDArray[np.bool_],
    probability: Floats,
    draws: Draws,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> DecisionCurve:
    """Compute net benefit with intervals from draws of patients.

    Parameters
    ----------
    positive
        (n,) bool truth.
    probability
        (n,) of the positive class; one acts at or above the threshold.
    draws
        Bootstrap draws of the same units.
    thresholds
        Each above 0 and below 1.
    """
    acted = probability[:, None] >= np.asarray(thresholds)
    everyone = np.ones_like(acted)
    model, treat_all = (
        _estimates(net_benefit_of_cases(positive, decided, thresholds), draws.weights())
        for decided in (acted, everyone)
    )
    return DecisionCurve(thresholds, model, treat_all)


def net_benefit_of_cases(
    positive: npt.NDArray[np.bool_], acted: npt.NDArray[np.bool_], thresholds: tuple[float, ...]
) -> Floats:
    """Return what each case adds to the net benefit, (n, thresholds): 1, minus the odds, or 0.

    Examples
    --------
    >>> acted = np.array([[True], [True], [False]])
    >>> net_benefit_of_cases(np.array([True, False, True]), acted, (0.2,))[:, 0].tolist()
    [1.0, -0.25, 0.0]
    """
    cut = np.asarray(thresholds, np.float64)
    return np.asarray(acted * np.where(positive[:, None], 1.0, -cut / (1 - cut)), np.float64)


def _estimates(benefit: Floats, weights: npt.NDArray[np.float32]) -> tuple[Estimate, ...]:
    drawn = (weights @ benefit.astype(np.float32)).astype(np.float64)
    drawn /= weights.sum(1, dtype=np.float64)[:, None]
    return tuple(
        estimate(float(benefit[:, k].mean()), drawn[:, k], n=len(benefit)) for k in range(benefit.shape[1])
    )
