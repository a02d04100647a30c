"""From a study's images to one answer: the mean of their probabilities, or one head on a pooled vector.

``mean-probability`` is MURA's official rule (arXiv 1712.06957): the arithmetic mean over a study's images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.task import POOLINGS
from heads.scores import Floats, probabilities_from_scores

# A mean of probabilities may round to 0; its logarithm must not be infinite.
_FLOOR = 1e-300
_UNITS = 1024


def pool_vectors(
    X: npt.NDArray[np.float32], unit_of_image: npt.NDArray[np.int64], *, n_units: int, pooling: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the rows that a head sees, and the unit of each.

    Parameters
    ----------
    X
        (n_images, dim) float32.
    unit_of_image
        (n_images,) int64 from 0 to ``n_units - 1``; every unit has an image.
    n_units
        Number of units.
    pooling
        ``mean-probability`` leaves one row per image; ``mean-vector`` and ``max-vector`` make one per unit.

    Raises
    ------
    UsageError
        If the pooling is unknown, or a unit has no image.
    """
    if pooling not in POOLINGS:
        raise UsageError(f"pooling must be one of {', '.join(POOLINGS)}; found {pooling!r}")
    images = np.bincount(unit_of_image, minlength=n_units)
    if len(images) != n_units or (images == 0).any():
        raise UsageError(
            f"each of {n_units} units needs an image; {int((images == 0).sum())} have none "
            f"and the largest unit is {len(images) - 1}"
        )
    if pooling == "mean-probability":
        return X, unit_of_image
    order = np.argsort(unit_of_image, kind="stable")
    ends = np.cumsum(images)
    pooled = np.empty((n_units, X.shape[1]), np.float32)
    # Some units at a time: widened copies of all images would be the largest arrays of a probe.
    for start in range(0, n_units, _UNITS):
        units = slice(start, min(start + _UNITS, n_units))
        begin = ends[start] - images[start]
        own, first = X[order[begin : ends[units.stop - 1]]], ends[units] - images[units] - begin
        if pooling == "max-vector":
            pooled[units] = np.maximum.reduceat(own, first, axis=0)
        else:
            sums = np.add.reduceat(own.astype(np.float64), first, axis=0)
            pooled[units] = sums / images[units, None]
    return pooled, np.arange(n_units)


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
