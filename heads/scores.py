"""Decision scores, and the probabilities that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


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


def log_probabilities(scores: Floats) -> Floats:
    """Return (n, n_classes) log probabilities of the scores, finite for finite scores."""
    wide = np.concatenate([np.zeros_like(scores), scores], axis=1) if scores.shape[1] == 1 else scores
    shifted = wide - wide.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials[:, :1].copy()
    for k in range(1, wide.shape[1]):
        total += exponentials[:, k : k + 1]
    return np.asarray(shifted - np.log(total), np.float64)


def columns_of(classes: npt.NDArray[Any]) -> int:
    """Return how many decision scores a case has: one with two classes, else one per class."""
    return 1 if len(classes) == 2 else len(classes)
