"""Solved logistic problems, in terms of the vectors as they were given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.base import Training


@dataclass(frozen=True)
class Solution:
    """Solved problems, in terms of the vectors as they were given (l2: of their unit vectors).

    Parameters
    ----------
    coef
        (strengths, held out, targets, columns, dim) float64.
    intercept
        (strengths, held out, targets, columns) float64.
    converged
        (strengths, held out, targets) bool.
    iterations
        (strengths, held out, targets) int64.
    held_out_scores
        (strengths, n, targets, columns) float32: each row scored by the problem that held its fold out;
        NaN for a row whose fold nobody held out.
    """

    coef: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]
    converged: npt.NDArray[np.bool_]
    iterations: npt.NDArray[np.int64]
    held_out_scores: npt.NDArray[np.float32]


def empty_solution(
    training: Training,
    held_out: Sequence[int],
    strengths: Sequence[float],
    scores: npt.NDArray[np.float32] | None,
) -> Solution:
    """Return a solution of no problem yet; the parameters are those of `heads.solvers.logistic_grid.solve`."""
    n, dim = training.X.shape
    shape = (len(strengths), len(held_out), training.y.shape[1])
    if scores is None:
        scores = np.empty((shape[0], n, shape[2], training.columns), np.float32)
    scores[:] = np.nan
    return Solution(
        coef=np.zeros((*shape, training.columns, dim)),
        intercept=np.zeros((*shape, training.columns)),
        converged=np.zeros(shape, np.bool_),
        iterations=np.zeros(shape, np.int64),
        held_out_scores=scores,
    )


def by_group(
    coef: npt.NDArray[np.float64], group: npt.NDArray[np.int64], factors: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Multiply (problems, columns, k) coefficients by their group's matrix."""
    found = np.empty((*coef.shape[:2], factors.shape[2]))
    for own in np.unique(group):
        found[group == own] = coef[group == own] @ factors[own]
    return found


def one_hot(y: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.uint8]:
    """Return (problems, columns, n); a missing label is a column of zeros, whose weight is zero too."""
    classes = np.arange(1, 2) if n_classes == 2 else np.arange(n_classes)
    return np.asarray(y[:, None] == classes[:, None], np.uint8)
