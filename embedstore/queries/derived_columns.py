"""Columns that a manifest does not hold and that follow from those it holds.

``series_kind`` says of what kind an image's series is, ``place`` where along it the image lies
(`embedstore.view.PLACE`), and names of columns with commas between them (``crop,level,side``) are their values side by
side, as the key of a unit of several columns is.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.crops.weightings import weightings
from embedstore.geometry import slice_centres_mm, slice_normal
from embedstore.slices.planes import COLUMNS as PLANE_COLUMNS
from embedstore.slices.planes import planes_of_table
from embedstore.task import unit_id_of
from embedstore.view import PLACE

# A stack is cut into so many parts: of fifteen sagittal slices two lie in each, of forty axial ones five; three
# kinds of series make 24 places.
PARTS = 8
KIND = "series_kind"
PLACE_SOURCES = ("plane", "series_description")
_BETWEEN = ","
_TOLERANCE = 1e-9


def can_say(name: str, columns: Collection[str]) -> bool:
    """Whether a column is there, or follows from those that are."""
    if name in columns:
        return True
    if name in (KIND, PLACE):
        return any(source in columns for source in PLACE_SOURCES)
    return _BETWEEN in name and all(part in columns for part in name.split(_BETWEEN))


def derived_text(table: pa.Table, name: str) -> npt.NDArray[np.str_] | None:
    """Return a derived column as text; None for a name that is none, or that does not follow from the table.

    Raises
    ------
    DataError
        If a value of joined columns holds the character that joins them.
    """
    if not can_say(name, table.column_names):
        return None
    if name == PLACE:
        return places_of_images(table)
    if name == KIND:
        return kinds_of_series(table)
    names = name.split(_BETWEEN)
    columns = [_text(table, part).tolist() for part in names]
    cells = [unit_id_of(names, row) for row in zip(*columns, strict=True)]
    return np.array(cells, np.str_)


def kinds_of_series(table: pa.Table) -> npt.NDArray[np.str_]:
    """Return the kind of each image's series: plane and weighting (`embedstore.crops.weightings`).

    Where the plane is unknown it is the series description. Two data sets that describe their series differently, or
    not at all, have the same kinds.

    Examples
    --------
    >>> kinds_of_series(pa.table({"plane": ["sagittal"], "echo_time_ms": [102.0]})).tolist()
    ['sagittal T2']
    """
    planes, described = _text(table, "plane"), _text(table, "series_description")
    weighted = np.array([f" {name}" if name else "" for name in weightings(table)], np.str_)
    return np.asarray(np.where(planes == "", described, np.char.add(planes, weighted)), np.str_)


def places_of_images(table: pa.Table) -> npt.NDArray[np.str_]:
    """Return where each image lies: ``sagittal T1 3/8``.

    Behind the kind of series (`kinds_of_series`) stands the part of the way along it. The parts run from the first to
    the last slice of a study's images of that kind, over all their stacks, towards the patient's left, back or head
    (`embedstore.geometry`).

    Parameters
    ----------
    table
        Rows of a manifest, with all images of a study.

    Returns
    -------
    ndarray
        (n_rows,) str; the kind alone where nothing says the position, and ``""`` where nothing says either.

    Examples
    --------
    >>> slices = {"study_id": ["a"] * 3, "plane": ["sagittal"] * 3, "position_fraction": [0.0, 0.5, 1.0]}
    >>> places_of_images(pa.table(slices)).tolist()
    ['sagittal 1/8', 'sagittal 5/8', 'sagittal 8/8']
    """
    kinds, along = kinds_of_series(table), _positions(table)
    named = np.array(
        [f"{study}\0{kind}" for study, kind in zip(_text(table, "study_id"), kinds, strict=True)]
    )
    _, group = np.unique(named, return_inverse=True)
    known = np.isfinite(along) & (kinds != "")
    low, high = np.full((2, int(group.max(initial=-1)) + 1), np.nan)
    np.fmin.at(low, group[known], along[known])
    np.fmax.at(high, group[known], along[known])
    extent = (high - low)[group]
    fraction = np.full(len(along), 0.5)
    np.divide(along - low[group], extent, out=fraction, where=known & (extent > 0))
    # A slice midway of three is at 0.5 whatever the last digit of its millimetres.
    part = np.minimum(np.floor(fraction * PARTS + _TOLERANCE), PARTS - 1).astype(np.int64) + 1
    placed = np.char.add(np.char.add(kinds, " "), np.char.add(part.astype(np.str_), f"/{PARTS}"))
    return np.where(known, placed, kinds)


def _positions(table: pa.Table) -> npt.NDArray[np.float64]:
    """Return how far along each slice lies: millimetres of its centre, or the share of its stack; NaN if unknown."""
    if not all(name in table.column_names for name in PLANE_COLUMNS):
        return _numbers(table, "position_fraction")
    slices = planes_of_table(table, source="the manifest")
    known = slices.known
    found = np.full(table.num_rows, np.nan)
    if known.any():
        own = slices.take(known)
        centres_mm = slice_centres_mm(own.orientations, own.positions_mm, own.spacings_mm, own.shapes_px)
        # Of several stacks that follow the discs each has its own normal; their order is that of the axis they share.
        axis = np.argmax(np.abs(slice_normal(own.orientations)).round(6), axis=1)
        found[known] = np.take_along_axis(centres_mm, axis[:, None], axis=1)[:, 0]
    return found


def _text(table: pa.Table, name: str) -> npt.NDArray[np.str_]:
    if name not in table.column_names:
        return np.full(table.num_rows, "", np.str_)
    return np.array(table.column(name).cast(pa.string()).fill_null("").to_pylist(), np.str_)


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    if name not in table.column_names or not pa.types.is_floating(table.schema.field(name).type):
        return np.full(table.num_rows, np.nan)
    return np.asarray(pc.fill_null(table.column(name).cast(pa.float64()), np.nan), np.float64)
