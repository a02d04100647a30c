"""The choice of a grid point by log loss at the task's unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.view import MISSING
from heads.scores import pool_scores, probabilities_from_scores
from heads.statistics.metric_functions import log_loss


def pooled_scores(
    scores: npt.NDArray[np.float32], unit_of_row: npt.NDArray[np.int64], *, n_units: int
) -> npt.NDArray[np.float64]:
    """Pool (rows, targets, columns) scores to (units, targets, columns); a single row's scores stay as they are."""
    pooled = [
        pool_scores(scores[:, target], unit_of_row, n_units=n_units) for target in range(scores.shape[1])
    ]
    return np.stack(pooled, axis=1)


def point_losses(
    scores: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    unit_of_row: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return the log loss at the unit of every grid point and target.

    Parameters
    ----------
    scores
        (points, rows, targets, columns) out-of-fold decision scores.
    y
        (units, targets) int64, `MISSING` where there is no label.
    unit_of_row
        (rows,) int64.

    Returns
    -------
    ndarray
        (points, targets) float64; infinite where a point could not be fitted.
    """
    losses = np.empty((len(scores), y.shape[1]))
    for target in range(y.shape[1]):
        labelled = y[:, target] != MISSING
        rows = labelled[unit_of_row]
        for point, of_point in enumerate(scores):
            of_target = of_point[:, target]
            # Most points of a long grid may not have been fitted: they are passed over before they are pooled.
            if not np.isfinite(of_target[rows]).all():
                losses[point, target] = np.inf
                continue
            known = pool_scores(of_target, unit_of_row, n_units=len(y))[labelled]
            losses[point, target] = log_loss(y[labelled, target], probabilities_from_scores(known))[0]
    return losses


def best_points(losses: npt.NDArray[np.float64]) -> Sequence[int]:
    """Return the point with the smallest loss for each target; the first of equals.

    Raises
    ------
    DataError
        If no point could be fitted to a target.
    """
    if not np.isfinite(losses).any(axis=0).all():
        raise DataError(
            "no point of the head's grid could be fitted; use more regularisation or another head"
        )
    return [int(point) for point in np.argmin(losses, axis=0)]
