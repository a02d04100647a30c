"""Decision scores of rows and units, and the probabilities that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# A mean of probabilities may round to 0; its logarithm must not be infinite.
_FLOOR = 1e-300


def probabilities_from_scores(scores: npt.NDArray[Any]) -> Floats:
    """Turn decision scores into probabilities.

    Parameters
    ----------
    scores
        (..., 1) logits of the second class, or (..., n_classes) logits.

    Returns
    -------
    ndarray
        (..., n_classes) float64; no entry is NaN, rows sum to 1. Each row depends on nothing but itself.
    """
    wide = np.asarray(scores, np.float64)
    if wide.shape[-1] == 1:
        wide = np.concatenate([np.zeros_like(wide), wide], axis=-1)
    exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True))
    # Summed class by class: the order of a library's reduction may depend on the shape.
    total = exponentials[..., :1].copy()
    for k in range(1, wide.shape[-1]):
        total += exponentials[..., k : k + 1]
    return np.asarray(exponentials / total, np.float64)


def pool_scores(scores: npt.NDArray[Any], unit_of_row: npt.NDArray[np.int64], *, n_units: int) -> Floats:
    """Return one score per unit whose probability is the mean of its rows' probabilities.

    Parameters
    ----------
    scores
        (n_rows, columns): one column of logits of the second class, or one per class.
    unit_of_row
        (n_rows,) int64.
    n_units
        Number of units.

    Returns
    -------
    ndarray
        (n_units, columns) float64: logits. A unit's bits depend on its own rows only, in any order.
    """
    rows_of_unit = np.bincount(unit_of_row, minlength=n_units)
    probabilities = probabilities_from_scores(scores)
    means = np.empty((n_units, probabilities.shape[1]))
    for k in range(probabilities.shape[1]):
        # Sorted within the unit: a sum of floating-point numbers depends on their order.
        order = np.lexsort((probabilities[:, k], unit_of_row))
        sums = np.bincount(unit_of_row[order], probabilities[order, k], n_units)
        means[:, k] = sums / np.maximum(rows_of_unit, 1)
    logarithms = np.log(np.maximum(means, _FLOOR))
    pooled = logarithms[:, 1:] - logarithms[:, :1] if scores.shape[1] == 1 else logarithms
    # The score of a single row stays as it is: saturated probabilities would lose its order.
    single = rows_of_unit[unit_of_row] == 1
    pooled[unit_of_row[single]] = scores[single]
    return pooled


def log_probabilities(scores: Floats) -> Floats:
    """Return (n, n_classes) log probabilities of the scores, finite for finite scores."""
    wide = np.concatenate([np.zeros_like(scores), scores], axis=1) if scores.shape[1] == 1 else scores
    shifted = wide - wide.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials[:, :1].copy()
    for k in range(1, wide.shape[1]):
        total += exponentials[:, k : k + 1]
    return np.asarray(shifted - np.log(total), np.float64)


def log_odds_of(probabilities: Floats) -> Floats:
    """Return log odds of the second of two classes, or centred log probabilities of several.

    Parameters
    ----------
    probabilities
        (..., n_classes), none of them 0; NaN stays NaN.

    Returns
    -------
    ndarray
        (..., columns) float64: one column with two classes, else one per class.
    """
    logs = np.log(probabilities)
    if logs.shape[-1] == 2:
        return np.asarray(logs[..., 1:] - logs[..., :1], np.float64)
    # Summed class by class: a row's bits must not depend on the batch.
    total = logs[..., :1].copy()
    for k in range(1, logs.shape[-1]):
        total += logs[..., k : k + 1]
    return np.asarray(logs - total / logs.shape[-1], np.float64)


def blended(log_odds: Floats, weights: Sequence[Sequence[float]]) -> Floats:
    """Return the weighted sums of several heads' log odds.

    Parameters
    ----------
    log_odds
        (n, parts, targets, columns).
    weights
        By target, one for each part.

    Returns
    -------
    ndarray
        (n, targets, columns) float64, NaN where a part is. A row's bits depend on itself only.
    """
    of_part = np.asarray(weights, np.float64).T[:, :, None]
    scores = of_part[0] * log_odds[:, 0]
    for part in range(1, len(of_part)):
        scores += of_part[part] * log_odds[:, part]
    return np.asarray(scores, np.float64)


def columns_of(classes: npt.NDArray[Any]) -> int:
    """Return how many decision scores a case has: one with two classes, else one per class."""
    return 1 if len(classes) == 2 else len(classes)
