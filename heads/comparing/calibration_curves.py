"""How stated probabilities of grades compare with what was there, all cells together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.intervals.calibration_error import reliability_points
from heads.scores import Floats
from heads.statistics.metrics import ece_bins

# What is stated -> the lowest class that it holds.
EVENTS = {"severe": 2, "moderate or severe": 1}
# A curve is drawn of fewer cells than an ECE is stated for; its points show their counts.
_FEWEST_BINS = 2


@dataclass(frozen=True, kw_only=True)
class CalibrationCurve:
    """Of one event, over all labelled cells.

    Parameters
    ----------
    stated, observed
        Mean probability, and share of cells where it was so.
    points
        Bins of equal mass by rising probability: mean probability, observed share, cells.
    """

    stated: float
    observed: float
    points: tuple[tuple[float, float, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the curve as plain JSON values."""
        points = [{"stated": stated, "observed": observed, "n": n} for stated, observed, n in self.points]
        return {"stated": self.stated, "observed": self.observed, "points": points}


def calibration_curves(y: npt.NDArray[np.int64], probabilities: Floats) -> Mapping[str, CalibrationCurve]:
    """Return the curve of each of `EVENTS`.

    Parameters
    ----------
    y
        (n_studies, targets) int64: 0, 1, 2, or `MISSING`; one label at least.
    probabilities
        (n_studies, targets, 3).
    """
    labelled = y != MISSING
    truth, said = y[labelled], probabilities[labelled]
    curves = {}
    for event, lowest in EVENTS.items():
        probability, happened = said[:, lowest:].sum(axis=1), truth >= lowest
        bins = max(ece_bins(len(truth)), _FEWEST_BINS)
        curves[event] = CalibrationCurve(
            stated=float(probability.mean()),
            observed=float(happened.mean()),
            points=tuple(reliability_points(probability, happened, bins=bins)),
        )
    return curves
