"""Columns that say where each slice of a series lies, from the headers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.geometry import valid_geometry
from embedstore.headers.dicom_headers import DicomHeader
from embedstore.slices.placement import place_slices
from embedstore.slices.planes import COLUMNS as PLANE_COLUMNS
from embedstore.slices.planes import numbers_as_text

COLUMNS: dict[str, pa.DataType] = {
    "plane": pa.string(),
    "stack": pa.int32(),
    "slice_index": pa.int32(),
    "position_mm": pa.float64(),
    "position_fraction": pa.float64(),
    "left_right_mm": pa.float64(),
    **PLANE_COLUMNS,
}
_NAN = math.nan
_Columns = dict[str, list[Any]]


def slice_columns(series: Sequence[str | None], headers: Sequence[DicomHeader | None]) -> dict[str, pa.Array]:
    """Place every slice in its series.

    Parameters
    ----------
    series
        The series of each row, None where unknown.
    headers
        The header of each row, of its own frame (`DicomHeader.of_frame`); None where it could not be read.

    Returns
    -------
    One array per name in `COLUMNS`, None where a row has no usable geometry: the plane (``sagittal``,
    ``coronal``, ``axial``, ``oblique``), the stack's number within the series, the slice's rank in its
    stack, its position along the stack's axis in mm and from 0 to 1, and the left-right position of its
    centre in mm (positive to the patient's left); and what `embedstore.slices.planes.planes_of_table` reads, from
    which a pixel's place in the patient follows. Ranks follow the position, never the file's name or number;
    frames that an enhanced file assigns to different stacks are never one. A frame without a position whose
    file numbers the places in a stack has the stack and the rank alone.
    """
    columns: _Columns = {name: [None] * len(series) for name in COLUMNS}
    rows_of_series: dict[str, list[int]] = defaultdict(list)
    for row, (name, header) in enumerate(zip(series, headers, strict=True)):
        if name is not None and header is not None:
            rows_of_series[name].append(row)
    for rows in rows_of_series.values():
        _place_series(columns, np.array(rows), [header for row in rows if (header := headers[row])])
    return {name: pa.array(columns[name], kind) for name, kind in COLUMNS.items()}


def _place_series(columns: _Columns, rows: npt.NDArray[np.int64], headers: Sequence[DicomHeader]) -> None:
    orientations = np.array([header.orientation or (_NAN,) * 6 for header in headers])
    positions_mm = np.array([header.position_mm or (_NAN,) * 3 for header in headers])
    spacings_mm = np.array([header.spacing_mm or (_NAN,) * 2 for header in headers])
    shapes_px = np.array([(header.rows, header.columns) for header in headers])
    good = valid_geometry(orientations, positions_mm, spacings_mm)
    said = np.array([-1 if header.stack is None else header.stack for header in headers])
    stacks = 0
    for number in dict.fromkeys(said[good].tolist()):
        chosen = good & (said == number)
        placed = place_slices(
            orientations[chosen], positions_mm[chosen], spacings_mm[chosen], shapes_px[chosen]
        )
        found = {
            "plane": placed.plane,
            "stack": placed.stack + stacks,
            "slice_index": placed.index,
            "position_mm": placed.position_mm.round(3),
            "position_fraction": placed.fraction.round(6),
            "left_right_mm": placed.left_right_mm.round(3),
            "image_orientation": numbers_as_text(orientations[chosen]),
            "image_position": numbers_as_text(positions_mm[chosen]),
            "row_spacing_mm": spacings_mm[chosen, 0],
            "column_spacing_mm": spacings_mm[chosen, 1],
            "image_rows": shapes_px[chosen, 0],
            "image_columns": shapes_px[chosen, 1],
        }
        for name, values in found.items():
            for row, value in zip(rows[chosen], values.tolist(), strict=True):
                columns[name][row] = value
        stacks += int(placed.stack.max()) + 1
    places = np.array([0 if header.place is None else header.place for header in headers])
    numbered = ~good & (places > 0)
    for number in dict.fromkeys(said[numbered].tolist()):
        chosen = np.flatnonzero(numbered & (said == number))
        for rank, row in enumerate(rows[chosen[np.argsort(places[chosen], kind="stable")]]):
            columns["stack"][row], columns["slice_index"][row] = stacks, rank
        stacks += 1
