"""The points that readers placed, as the competition's table of coordinates has them: oracle points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from embedstore.errors import DataError
from embedstore.geometry import pixel_to_patient_mm
from embedstore.lumbar.level_points import LevelPoints, points_from_rows
from embedstore.lumbar.levels import LEVELS
from embedstore.slices.planes import SlicePlanes, planes_of_table

COORDINATES = "coordinates"
_STRUCTURE_OF = {
    "spinal_canal_stenosis": "canal",
    "left_neural_foraminal_narrowing": "left_foramen",
    "right_neural_foraminal_narrowing": "right_foramen",
    "left_subarticular_stenosis": "left_subarticular",
    "right_subarticular_stenosis": "right_subarticular",
}
NO_IMAGE = "image not in the store"
OUTSIDE = "outside the image"
NO_PLACE = "image without usable geometry"
TWICE = "given twice"
_MEND = "Mend the line in the data set's table and extract again"


class HoldsCoordinates(Protocol):
    """What is asked of a store."""

    @property
    def table(self) -> pa.Table:
        """The manifest."""

    def further_table(self, name: str) -> pa.Table:
        """Return a table beside the manifest."""


def oracle_points(store: HoldsCoordinates) -> LevelPoints:
    """Return the labelled points of a store in patient millimetres.

    Parameters
    ----------
    store
        A store of `rsna-lumbar`, with the table ``coordinates`` and the geometry of its slices.

    Returns
    -------
    LevelPoints
        With origin ``oracle``; `LevelPoints.left_out` counts the points whose image is not there or has no usable
        geometry, that lie outside their image, and that name a structure of a study again.

    Raises
    ------
    UsageError
        If the store has no such table.
    DataError
        If its rows lack their geometry, or a condition or level is unknown.
    """
    table = store.further_table(COORDINATES)
    manifest = store.table
    planes = planes_of_table(manifest, source="the store")
    row_of = {image_id: row for row, image_id in enumerate(manifest.column("image_id").to_pylist())}
    cells = {name: table.column(name).to_pylist() for name in table.column_names}
    structures = [_structure(cell, at, cells) for at, cell in enumerate(cells["condition"])]
    levels = [_level(cell, at, cells) for at, cell in enumerate(cells["level"])]
    images = np.array([row_of.get(image_id, -1) for image_id in cells["image_id"]], np.int64)
    pixels = np.array([cells["x"], cells["y"]], np.float64).T.reshape(-1, 2)
    why, xyz_mm = _placed(images, pixels, planes)
    series, studies = (manifest.column(name).to_pylist() for name in ("series_id", "study_id"))
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str, str]] = set()
    left_out: Counter[str] = Counter(reason for reason in why if reason)
    for place in (place for place, reason in enumerate(why) if not reason):
        image = images[place]
        key = (studies[image] or "", structures[place], levels[place])
        if key in seen:
            left_out[TWICE] += 1
            continue
        seen.add(key)
        rows.append(
            {
                "study_id": key[0],
                "structure": key[1],
                "level": key[2],
                "xyz_mm": xyz_mm[place],
                "series_id": series[image] or "",
                "confidence": np.nan,
                "unsure": False,
            }
        )
    return points_from_rows(rows, origin="oracle", digest=None, left_out=dict(sorted(left_out.items())))


def _placed(images: Any, pixels: Any, planes: SlicePlanes) -> tuple[list[str], Any]:
    """Return why each point cannot be placed, or ``""``, and its place in mm (NaN where there is none)."""
    xyz_mm = np.full((len(images), 3), np.nan)
    there = np.flatnonzero(images >= 0)
    of_points = planes.take(images[there])
    known = of_points.known
    # The first pixel reaches half a pixel beyond its centre.
    rows_columns = of_points.shapes_px[:, ::-1]
    inside = ((pixels[there] >= -0.5) & (pixels[there] <= rows_columns - 0.5)).all(axis=1)
    why = np.full(len(images), NO_IMAGE, object)
    why[there] = np.where(~known, NO_PLACE, np.where(inside, "", OUTSIDE))
    good = known & inside
    chosen = of_points.take(good)
    if len(chosen):
        xyz_mm[there[good]] = pixel_to_patient_mm(
            pixels[there[good]], chosen.orientations, chosen.positions_mm, chosen.spacings_mm
        )
    return why.tolist(), xyz_mm


def _structure(condition: str | None, at: int, cells: Mapping[str, Sequence[Any]]) -> str:
    name = (condition or "").strip().lower().replace(" ", "_")
    if name not in _STRUCTURE_OF:
        raise DataError(
            f"{_where(at, cells)}: condition must be one of {', '.join(_STRUCTURE_OF)}; found {condition!r}. {_MEND}"
        )
    return _STRUCTURE_OF[name]


def _level(level: str | None, at: int, cells: Mapping[str, Sequence[Any]]) -> str:
    name = (level or "").strip().lower().replace("/", "_")
    if name not in LEVELS:
        raise DataError(
            f"{_where(at, cells)}: level must be one of L1/L2, L2/L3, L3/L4, L4/L5, L5/S1; found {level!r}. {_MEND}"
        )
    return name


def _where(at: int, cells: Mapping[str, Sequence[Any]]) -> str:
    return f"table {COORDINATES!r}, line {at + 2}, image {cells['image_id'][at]!r}"
