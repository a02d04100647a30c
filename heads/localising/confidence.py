"""How likely the names of a study's levels are right, by the margin of their path; spines without five discs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from heads.localising.spine_prior import Floats

_SCALE_NATS = 10.0
_LARGEST = 10.0  # margins beyond 100 nats say no more
_STEPS = 50
_RIDGE = 1e-2
# This share of the studies that were learned from, all read as five discs, would be taken for another number.
FALSE_VARIANTS = 0.005
# Names of a spine that seems to have another number of discs are no better than a toss.
VARIANT_CONFIDENCE = 0.5


@dataclass(frozen=True)
class Confidence:
    """A logistic curve over the margin."""

    intercept: float
    slope: float

    def of(self, margins: npt.ArrayLike) -> Floats:
        """Return the probability that all names are right for margins in nats."""
        chance: Floats = expit(self.intercept + self.slope * _scaled(margins))
        return chance

    def to_json(self) -> dict[str, float]:
        """Return plain JSON values."""
        return {"intercept": self.intercept, "slope": self.slope}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Confidence:
        """Build the curve from `to_json`."""
        return cls(float(document["intercept"]), float(document["slope"]))


def learn_confidence(margins: npt.ArrayLike, right: npt.NDArray[np.bool_]) -> Confidence:
    """Fit the curve to out-of-fold margins.

    Labels are moved towards one half as Platt (1999) does, so that a sample without a wrong study does not promise
    certainty: of n right studies the mean confidence is (n + 1) / (n + 2).

    Parameters
    ----------
    margins
        (n,) nats.
    right
        (n,) whether all names were.
    """
    wanted = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    design = np.column_stack([np.ones(len(wanted)), _scaled(margins)])
    weights = np.zeros(2)
    penalty = np.diag([0.0, _RIDGE])
    for _ in range(_STEPS):
        chance = expit(design @ weights)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + penalty + 1e-9 * np.eye(2)
        weights = weights + np.linalg.solve(curvature, design.T @ (wanted - chance) - penalty @ weights)
    if weights[1] < 0:
        # A larger margin never makes names less likely.
        mean = float(wanted.mean())
        return Confidence(float(np.log(mean / (1 - mean))), 0.0)
    return Confidence(float(weights[0]), float(weights[1]))


def variant_limits(gaps: Sequence[Mapping[int, float]], discs: Sequence[int]) -> dict[int, float]:
    """Return, for each number of discs, the gap that `FALSE_VARIANTS` of five-disc spines exceed; 0 at least."""
    limits = {}
    for number in discs:
        known = [gap[number] for gap in gaps if number in gap]
        limits[number] = max(0.0, float(np.quantile(known, 1 - FALSE_VARIANTS))) if known else np.inf
    return limits


def variant_of(gaps: Mapping[int, float], limits: Mapping[int, float]) -> int | None:
    """Return the number of discs that a spine seems to have in place of five, or None."""
    beyond = {number: gap - limits.get(number, np.inf) for number, gap in gaps.items()}
    beyond = {number: excess for number, excess in beyond.items() if excess > 0}
    return max(beyond, key=lambda number: beyond[number]) if beyond else None


def _scaled(margins: npt.ArrayLike) -> Floats:
    scaled: Floats = np.clip(np.asarray(margins, float) / _SCALE_NATS, -_LARGEST, _LARGEST)
    return scaled
