"""What crops say of the levels that they show: how sure their names are, and which crops speak for which target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.lumbar.level_points import ALL_LEVELS

_COLUMNS = ("level", "points", "level_confidence", "level_unsure")
_OF_CROP = ("level", "side", "offset", "distance_mm")


@dataclass(frozen=True)
class ShownLevels:
    """The levels of a unit's crops.

    Parameters
    ----------
    points
        ``oracle`` or ``localised`` (`embedstore.lumbar.level_points.LevelPoints.origin`).
    confidence
        That the names of the levels are right, of several studies the lowest; None where nothing says it.
    unsure
        Whether they may be wrong, or the spine does not have five lumbar vertebrae.
    levels
        The levels, from head to foot.
    """

    points: str
    confidence: float | None
    unsure: bool
    levels: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return {"points": self.points, "confidence": self.confidence, "levels": list(self.levels)}


def shown_levels(
    table: pa.Table, unit_of_image: npt.NDArray[np.int64], n_units: int
) -> list[ShownLevels | None]:
    """Return what the crops of each unit say of its levels; None of whole images.

    Parameters
    ----------
    table
        Rows of a manifest, one for each image.
    unit_of_image
        (n_images,)
    n_units
        Units; each has an image.
    """
    if not all(name in table.column_names for name in _COLUMNS):
        return [None] * n_units
    rows: list[list[dict[str, Any]]] = [[] for _ in range(n_units)]
    for unit, row in zip(unit_of_image.tolist(), table.select(_COLUMNS).to_pylist(), strict=True):
        if row["points"] is not None:
            rows[unit].append(row)
    return [_levels(own) if own else None for own in rows]


def crops_of_targets(
    table: pa.Table,
    image_ids: Sequence[str],
    unit_of_image: npt.NDArray[np.int64],
    image_of_target: npt.NDArray[np.bool_] | None,
    n_units: int,
) -> list[list[list[dict[str, Any]]]] | None:
    """Return, by unit and target, the crops that speak for it; None of whole images.

    Parameters
    ----------
    table, unit_of_image, n_units
        As `shown_levels`.
    image_ids
        What images are called.
    image_of_target
        (n_images, targets); None where every image speaks for every target, which then are not listed.

    Returns
    -------
    list or None
        ``image``, ``level``, ``side``, ``offset`` (slices from the nearest one), ``distance_mm`` of the slice from the
        point; the nearest slice first.
    """
    if image_of_target is None or not all(name in table.column_names for name in _OF_CROP):
        return None
    columns = table.select(_OF_CROP).to_pylist()
    found: list[list[list[dict[str, Any]]]] = [
        [[] for _ in range(image_of_target.shape[1])] for _ in range(n_units)
    ]
    for image, target in zip(*np.nonzero(image_of_target), strict=True):
        found[unit_of_image[image]][target].append({"image": image_ids[image], **columns[image]})
    for of_unit in found:
        for crops in of_unit:
            crops.sort(key=lambda crop: abs(crop["offset"]))
    return found


def _levels(rows: Sequence[dict[str, Any]]) -> ShownLevels:
    known = [row["level_confidence"] for row in rows if row["level_confidence"] is not None]
    named = {row["level"] for row in rows}
    # A spine with another number of vertebrae has names of its own, in the same order.
    ordered = tuple(level for level in ALL_LEVELS if level in named)
    return ShownLevels(
        points=str(rows[0]["points"]),
        confidence=min(known, default=None),
        unsure=any(row["level_unsure"] for row in rows),
        levels=ordered,
    )
