"""Which level an axial slice shows: the one whose point its plane passes nearest to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.geometry import FloatArray, patient_mm_to_pixel
from embedstore.slices.planes import SlicePlanes

NO_LEVEL = -1
# Winners of the competition reject what is farther; slices of axial stacks lie 4 to 5 mm apart.
FARTHEST_MM = 5.0


@dataclass(frozen=True, eq=False)
class AxialLevels:
    """The level of each of n slices.

    Parameters
    ----------
    level
        (n,) int64: row of the points, or `NO_LEVEL`.
    distance_mm
        (n,) float64: signed distance of the slice's plane from its nearest point, positive where the point lies on
        the side of the slice's normal; NaN where there is none.
    """

    level: npt.NDArray[np.int64]
    distance_mm: FloatArray


def axial_levels(
    planes: SlicePlanes, points_mm: npt.ArrayLike, *, farthest_mm: float = FARTHEST_MM
) -> AxialLevels:
    """Assign axial slices to levels by their planes.

    Each slice is taken alone, so that several stacks of any tilt, and gaps between them, need no rule of their own. A
    point counts for a slice only if its projection lies within the image.

    Parameters
    ----------
    planes
        Of n slices; those without geometry have no level.
    points_mm
        (k, 3) the middle of each disc, patient coordinates; NaN for a level that was not found.
    farthest_mm
        A slice whose plane passes farther from every point has no level.

    Examples
    --------
    >>> planes = SlicePlanes(np.array([[1.0, 0, 0, 0, 1, 0]] * 2), np.array([[-50.0, -50, 0], [-50, -50, 20]]),
    ...                      np.ones((2, 2)), np.full((2, 2), 100.0))
    >>> axial_levels(planes, [[0, 0, 34], [0, 0, 3]]).level.tolist()
    [1, -1]
    """
    points = np.asarray(points_mm, np.float64).reshape(-1, 3)
    level = np.full(len(planes), NO_LEVEL, np.int64)
    distance = np.full(len(planes), np.nan)
    there = np.flatnonzero(np.isfinite(points).all(axis=1))
    known = np.flatnonzero(planes.known)
    if not len(there) or not len(known):
        return AxialLevels(level, distance)
    chosen = planes.take(known)
    pixels, signed = patient_mm_to_pixel(
        points[None, there],
        chosen.orientations[:, None],
        chosen.positions_mm[:, None],
        chosen.spacings_mm[:, None],
    )
    last = chosen.shapes_px[:, None, ::-1] - 0.5
    inside = ((pixels >= -0.5) & (pixels <= last)).all(axis=-1)
    away = np.where(inside, np.abs(signed), np.inf)
    nearest = away.argmin(axis=1)
    rows = np.arange(len(known))
    seen = np.isfinite(away[rows, nearest])
    distance[known[seen]] = signed[rows, nearest][seen]
    near = away[rows, nearest] <= farthest_mm
    level[known[near]] = there[nearest[near]]
    return AxialLevels(level, distance)
