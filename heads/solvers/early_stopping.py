"""When to stop: rows that a head holds out for it, whole patients of every class, and the stop of one without."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.base import Training
from heads.folds import assign_folds

RowIndices = npt.NDArray[np.int64]


def hold_out(
    training: Training, target: int, rows: RowIndices, *, share: float, seed: int
) -> tuple[RowIndices, RowIndices]:
    """Split rows into those to learn from and those to stop by.

    Parameters
    ----------
    training
        The rows' labels, weights and groups.
    target
        The target whose labels are to be spread evenly.
    rows
        (k,) int64 indices of rows with a label.
    share
        Share of the groups to hold out, 0 to 0.5; 0 holds nothing out.
    seed
        Decides which groups.

    Returns
    -------
    tuple of ndarray
        Rows to learn from, and rows held out: whole groups, with every class on both sides. Where that cannot
        be had (a class with one patient), nothing is held out.

    Raises
    ------
    UsageError
        If `share` is outside 0 to 0.5.
    """
    if not 0 <= share <= 0.5:
        raise UsageError(f"validation_share must be from 0 to 0.5; found {share}")
    nothing = rows[:0]
    if share == 0 or len(rows) == 0:
        return rows, nothing
    labels = training.y[rows, target]
    _, groups = np.unique(training.groups[rows], return_inverse=True)
    classes = np.unique(labels)
    rarest = min(len(np.unique(groups[labels == label])) for label in classes)
    folds = min(round(1 / share), rarest)
    if folds < 2:
        return rows, nothing
    fold = assign_folds(labels[:, None], groups, folds=folds, n_classes=training.n_classes, seed=seed)
    for candidate in range(folds):
        held = fold == candidate
        if all(len(np.unique(labels[side])) == len(classes) for side in (held, ~held)):
            return rows[~held], rows[held]
    return rows, nothing


def usual_stop(stops: npt.ArrayLike) -> int:
    """Return the median of the rounds (or epochs) after which the heads of several folds were best, halves down.

    The median, not the mean: one fold whose few held-out patients stopped late should not move the others.
    """
    return int(np.median(np.asarray(stops)))
