"""Where the pixels of each slice lie in the patient, as a manifest keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import Advice, DataError
from embedstore.geometry import FloatArray, valid_geometry

# As DICOM writes several numbers in one value: ``0\1\0\0\0\-1``.
_BETWEEN = "\\"
COLUMNS: dict[str, pa.DataType] = {
    "image_orientation": pa.string(),  # ImageOrientationPatient
    "image_position": pa.string(),  # ImagePositionPatient, mm
    "row_spacing_mm": pa.float64(),
    "column_spacing_mm": pa.float64(),
    "image_rows": pa.int32(),
    "image_columns": pa.int32(),
}


@dataclass(frozen=True, eq=False)
class SlicePlanes:
    """The planes of n slices; NaN where a slice has none. The words are those of `embedstore.geometry`.

    Parameters
    ----------
    orientations
        (n, 6) float64 ImageOrientationPatient.
    positions_mm
        (n, 3) float64 ImagePositionPatient.
    spacings_mm
        (n, 2) float64 PixelSpacing: between rows, between columns.
    shapes_px
        (n, 2) float64 rows, columns.
    """

    orientations: FloatArray
    positions_mm: FloatArray
    spacings_mm: FloatArray
    shapes_px: FloatArray

    def __len__(self) -> int:
        return len(self.orientations)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: the slices whose pixels can be placed in the patient."""
        shaped = np.logical_and.reduce(self.shapes_px >= 1, axis=-1)  # NaN is not
        placed: npt.NDArray[np.bool_] = shaped & valid_geometry(
            self.orientations, self.positions_mm, self.spacings_mm
        )
        return placed

    def take(self, rows: npt.ArrayLike) -> SlicePlanes:
        """Return the slices of these row numbers or of this mask, in that order."""
        chosen = np.asarray(rows)
        chosen = chosen if chosen.dtype == bool else chosen.astype(np.int64)
        return SlicePlanes(
            self.orientations[chosen],
            self.positions_mm[chosen],
            self.spacings_mm[chosen],
            self.shapes_px[chosen],
        )


def planes_of_table(table: pa.Table, *, source: str) -> SlicePlanes:
    r"""Return the planes of a manifest's rows.

    Parameters
    ----------
    table
        A manifest with `COLUMNS`; an empty cell is an unknown plane.
    source
        The store or folder, for messages.

    Raises
    ------
    DataError
        If a column is not there, or a cell does not hold as many numbers as it must.

    Examples
    --------
    >>> row = {"image_orientation": [r"0\1\0\0\0\-1"], "image_position": [r"4\0\9"], "row_spacing_mm": [0.5],
    ...        "column_spacing_mm": [0.5], "image_rows": [384], "image_columns": [384]}
    >>> planes_of_table(pa.table(row), source="a table").positions_mm.tolist()
    [[4.0, 0.0, 9.0]]
    """
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"{source}: its rows do not say where their pixels lie in the patient: column {missing[0]!r} is absent. "
            "Readers of DICOM (rsna-lumbar, dicom-folder) write it",
            advice=Advice.EXTRACT,
        )
    pairs = [("row_spacing_mm", "column_spacing_mm"), ("image_rows", "image_columns")]
    spacings, shapes = (
        np.stack([np.asarray(table.column(name).cast(pa.float64()), np.float64) for name in pair], axis=1)
        for pair in pairs
    )
    orientations, positions = (
        _numbers_of_text(table.column(name), count, f"{source}: {name}")
        for name, count in (("image_orientation", 6), ("image_position", 3))
    )
    return SlicePlanes(orientations, positions, spacings, shapes)


def numbers_as_text(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.object_]:
    r"""Return each row of numbers as DICOM writes several values, in digits that give the same float64 back.

    Examples
    --------
    >>> numbers_as_text(np.array([[0.1, -2.0, 3e-7]])).tolist()
    ['0.1\\-2\\3e-07']
    """
    texts = [_BETWEEN.join(map(_as_text, row)) for row in rows.tolist()]
    return np.array(texts, object)


def _as_text(number: float) -> str:
    return repr(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _numbers_of_text(cells: pa.ChunkedArray, count: int, where: str) -> FloatArray:
    texts: Sequence[str] = cells.drop_null().unique().to_pylist()
    known = np.full((len(texts) + 1, count), np.nan)
    for place, text in enumerate(texts):
        try:
            known[place] = [float(part) for part in text.split(_BETWEEN)]
        except ValueError as error:
            raise DataError(
                f"{where} must hold {count} numbers with backslashes between; found {text!r}"
            ) from error
    places = pc.fill_null(pc.index_in(cells, value_set=pa.array(texts, pa.string())), len(texts))
    return known[np.asarray(places, np.int64)]
