"""Thresholds for a decision between two classes, or for a grade and all graver ones, from out-of-fold probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.scores import Floats

HALF = 0.5
WANTED_SENSITIVITY = 0.90
WANTED_SPECIFICITY = 0.90
AT_SENSITIVITY = f"sensitivity-{WANTED_SENSITIVITY:.2f}"


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


def grade_thresholds(
    y: npt.NDArray[np.int64],
    probabilities: Floats,
    classes: Sequence[str],
    groups: Sequence[Sequence[int]] = (),
) -> tuple[dict[str, dict[str, float]], ...]:
    """Return thresholds of "this grade or a graver one", by target, grade and rule.

    Parameters
    ----------
    y
        (n, targets) int64, `MISSING` where there is no label.
    probabilities
        (n, targets, n_classes) float64 cross-fitted, classes from the least grade to the gravest.
    classes
        Names; there is no threshold for the least.
    groups
        Positions of the targets that one head answers, which have their thresholds in common; by default each target
        has its own.

    Returns
    -------
    tuple
        For each target, grade -> rule -> threshold of the sum of the probabilities of this and all graver classes, as
        `choose_thresholds`; a grade that no labelled case has, or all have, is left out.

    Examples
    --------
    >>> said = np.array([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.1, 0.4, 0.5]])[:, None]
    >>> found = grade_thresholds(np.array([[0], [1], [2]]), said, ["normal", "moderate", "severe"])
    >>> round(found[0]["moderate"]["youden"], 2), round(found[0]["severe"]["youden"], 2)
    (0.3, 0.35)
    """
    found: list[dict[str, dict[str, float]]] = [{} for _ in range(y.shape[1])]
    for targets in groups or [[target] for target in range(y.shape[1])]:
        known = y[:, list(targets)] != MISSING
        truth, said = y[:, list(targets)][known], probabilities[:, list(targets)][known]
        of_group = {
            classes[grade]: choose_thresholds((truth >= grade).astype(np.int64), at_least(said, grade))
            for grade in range(1, len(classes))
            if 0 < (truth >= grade).sum() < len(truth)
        }
        for target in targets:
            found[target] = of_group
    return tuple(found)


def at_least(probabilities: Floats, grade: int) -> Floats:
    """Return the (...,) probability of a grade or a graver one, summed class by class: the bits hold in any batch."""
    total = probabilities[..., grade].copy()
    for graver in range(grade + 1, probabilities.shape[-1]):
        total += probabilities[..., graver]
    return total


def gravest_reached(
    probabilities: Floats, classes: Sequence[str], thresholds: Mapping[str, float]
) -> npt.NDArray[np.int64]:
    """Return (n,) the gravest grade whose probability of it or a graver one is at or above its threshold.

    Parameters
    ----------
    probabilities
        (n, n_classes), from the least grade to the gravest.
    classes
        Names.
    thresholds
        Grade -> threshold; the least grade is what remains.
    """
    decided = np.zeros(len(probabilities), np.int64)
    for grade in range(1, len(classes)):
        if classes[grade] in thresholds:
            decided[at_least(probabilities, grade) >= thresholds[classes[grade]]] = grade
    return decided


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
