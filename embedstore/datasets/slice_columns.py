"""Columns that say where each slice of a series lies, from the headers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.datasets.dicom_headers import DicomHeader
from embedstore.geometry import valid_geometry
from embedstore.slice_placement import place_slices

COLUMNS: dict[str, pa.DataType] = {
    "plane": pa.string(),
    "stack": pa.int32(),
    "slice_index": pa.int32(),
    "position_mm": pa.float64(),
    "position_fraction": pa.float64(),
    "left_right_mm": pa.float64(),
}
_NAN = math.nan


def slice_columns(series: Sequence[str | None], headers: Sequence[DicomHeader | None]) -> dict[str, pa.Array]:
    """Place every slice in its series.

    Parameters
    ----------
    series
        The series of each row, None where unknown.
    headers
        The header of each row, None where it could not be read.

    Returns
    -------
    One array per name in `COLUMNS`, None where a row has no usable geometry: the plane (``sagittal``,
    ``coronal``, ``axial``, ``oblique``), the stack's number within the series, the slice's rank in its
    stack, its position along the stack's axis in mm and from 0 to 1, and the left-right position of its
    centre in mm (positive to the patient's left). Ranks follow the position, never the file's name or number.
    """
    columns: dict[str, list[Any]] = {name: [None] * len(series) for name in COLUMNS}
    rows_of_series: dict[str, list[int]] = defaultdict(list)
    for row, (name, header) in enumerate(zip(series, headers, strict=True)):
        if name is not None and header is not None and header.frames == 1:
            rows_of_series[name].append(row)
    for rows in rows_of_series.values():
        _place_series(columns, rows, [headers[row] for row in rows])
    return {name: pa.array(columns[name], kind) for name, kind in COLUMNS.items()}


def _place_series(
    columns: dict[str, list[Any]], rows: list[int], headers: Sequence[DicomHeader | None]
) -> None:
    known = [header for header in headers if header is not None]
    orientations = np.array([header.orientation or (_NAN,) * 6 for header in known])
    positions_mm = np.array([header.position_mm or (_NAN,) * 3 for header in known])
    spacings_mm = np.array([header.spacing_mm or (_NAN,) * 2 for header in known])
    shapes_px = np.array([(header.rows, header.columns) for header in known])
    good = valid_geometry(orientations, positions_mm, spacings_mm)
    if not good.any():
        return
    placed = place_slices(orientations[good], positions_mm[good], spacings_mm[good], shapes_px[good])
    found = {
        "plane": placed.plane,
        "stack": placed.stack,
        "slice_index": placed.index,
        "position_mm": placed.position_mm.round(3),
        "position_fraction": placed.fraction.round(6),
        "left_right_mm": placed.left_right_mm.round(3),
    }
    for name, values in found.items():
        for row, value in zip(np.flatnonzero(good), values.tolist(), strict=True):
            columns[name][rows[row]] = value
