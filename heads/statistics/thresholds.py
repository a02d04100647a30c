"""Thresholds for a decision between two classes, taken from out-of-fold probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from heads.scores import Floats

HALF = 0.5
WANTED_SENSITIVITY = 0.90
WANTED_SPECIFICITY = 0.90


def choose_thresholds(y: npt.NDArray[np.int64], probability: Floats) -> dict[str, float]:
    """Return thresholds by the name of their rule; a case is decided positive at or above its threshold.

    Parameters
    ----------
    y
        (n,) int64, 0 or 1, both present.
    probability
        (n,) float64 cross-fitted probability of class 1.

    Returns
    -------
    dict
        ``half`` (0.5), ``youden`` (largest sensitivity + specificity), ``sensitivity-0.90`` (the highest
        threshold that still finds 90 %) and ``specificity-0.90`` (the lowest that still spares 90 %).
    """
    candidates, sensitivity, specificity = _operating_points(y, probability)
    return {
        "half": HALF,
        "youden": float(candidates[np.argmax(sensitivity + specificity)]),
        f"sensitivity-{WANTED_SENSITIVITY:.2f}": float(candidates[sensitivity >= WANTED_SENSITIVITY][-1]),
        f"specificity-{WANTED_SPECIFICITY:.2f}": float(candidates[specificity >= WANTED_SPECIFICITY][0]),
    }


def _operating_points(y: npt.NDArray[np.int64], probability: Floats) -> tuple[Floats, Floats, Floats]:
    """Return rising thresholds midway between probabilities, with the sensitivity and specificity of each."""
    levels, inverse = np.unique(probability, return_inverse=True)
    positives = np.bincount(inverse, y == 1, len(levels))
    negatives = np.bincount(inverse, y == 0, len(levels))
    # Midway, so that rounding of a probability cannot turn a decision; the ends decide all or nothing.
    candidates = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    missed = np.concatenate([[0.0], np.cumsum(positives)])
    spared = np.concatenate([[0.0], np.cumsum(negatives)])
    return candidates, 1 - missed / missed[-1], spared / spared[-1]
