"""From a study's images to the rows of a head: the images themselves, or one pooled vector.

With ``mean-probability`` the head has the images, and scores the study (`heads.base.Head.unit_scores`): most heads by
the mean of the images' probabilities, which is MURA's official rule (arXiv 1712.06957).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.task import POOLINGS

# The pooling that leaves a head one row per image.
IMAGES = "mean-probability"
# A mean for each place, side by side (`heads.inputs.binned`): no task asks for it, since it needs to know places.
BINNED = "binned"
PROBE_POOLINGS = (*POOLINGS, BINNED)
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
    if pooling == IMAGES:
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


def unit_numbers(unit_of_image: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the unit of each image as int64; raises UsageError unless they are whole numbers from 0."""
    found = np.asarray(unit_of_image)
    if found.size and (found.dtype.kind not in "iu" or found.min() < 0):
        raise UsageError(
            f"unit_of_image must hold whole numbers from 0, the unit of each image; found {found.dtype} "
            f"{found.ravel()[:3].tolist()}"
        )
    return found.astype(np.int64)
