"""The token grids of a study's sagittal series, laid the same way up by their geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.geometry import FloatArray, directions, pixel_to_patient_mm
from embedstore.slices.planes import SlicePlanes

KINDS = ("T2", "T1")
# Spin echo of the spine: T1 with an echo time of about 10 ms, T2 of about 100; between them lies proton density.
_T1_BELOW_MS, _T2_FROM_MS = 30.0, 60.0


@dataclass(frozen=True, eq=False)
class SeriesGrid:
    """The token grids of one sagittal stack.

    Parameters
    ----------
    series_id
        The series.
    kind
        ``T2`` (or STIR), on which canals are found, or ``T1``, on which foramina are.
    tokens
        (slices, rows, columns, features) floating.
    planes
        Where the tokens of each slice lie: `embedstore.images.token_planes.token_planes`; all known.

    Raises
    ------
    DataError
        If shapes do not fit each other, the kind is unknown, or a plane is.
    """

    series_id: str
    kind: str
    tokens: npt.NDArray[Any]
    planes: SlicePlanes

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"series {self.series_id!r}: kind must be one of {KINDS}; found {self.kind!r}")
        if self.tokens.ndim != 4 or len(self.tokens) != len(self.planes) or not len(self.tokens):
            raise DataError(
                f"series {self.series_id!r}: tokens must be (slices, rows, columns, features) of at least one slice "
                f"and as many planes; found {self.tokens.shape} and {len(self.planes)} planes"
            )
        if not self.planes.known.all():
            raise DataError(f"series {self.series_id!r}: every slice needs a known plane")

    def centres_mm(self) -> FloatArray:
        """Return the middle of every token, (slices, rows, columns, 3) patient mm."""
        rows, columns = np.indices(self.tokens.shape[1:3], dtype=np.float64)
        tokens = np.stack([columns, rows], axis=-1)[None]
        planes = self.planes
        return pixel_to_patient_mm(
            tokens,
            planes.orientations[:, None, None],
            planes.positions_mm[:, None, None],
            planes.spacings_mm[:, None, None],
        )


@dataclass(frozen=True, eq=False)
class StudyGrids:
    """The sagittal series of one study.

    Parameters
    ----------
    study_id
        The study.
    series
        Grids of its T1 and T2 series, in any number; turned by `upright`.
    turned
        Whether a picture had to be turned or mirrored: the encoder saw it otherwise than it usually does.
    """

    study_id: str
    series: tuple[SeriesGrid, ...]
    turned: bool = False

    def of_kind(self, kind: str) -> tuple[SeriesGrid, ...]:
        """Return the series of a kind."""
        return tuple(grid for grid in self.series if grid.kind == kind)


def study_grids(study_id: str, series: tuple[SeriesGrid, ...]) -> StudyGrids:
    """Return a study with its series `upright`."""
    laid = [upright(grid) for grid in series]
    return StudyGrids(study_id, tuple(grid for grid, _ in laid), any(turned for _, turned in laid))


def upright(grid: SeriesGrid) -> tuple[SeriesGrid, bool]:
    """Lay the grids of a stack so that rows grow to the feet, columns to the back and slices to the patient's left.

    Each token keeps its place in the patient: only the order in the array changes, and the planes with it.

    Returns
    -------
    The series, and whether rows or columns changed their order.
    """
    tokens, planes = grid.tokens, grid.planes
    along_columns, along_rows = directions(planes.orientations)
    # The directions of a stack differ by a degree at most.
    columns, rows = along_columns.mean(axis=0), along_rows.mean(axis=0)
    turned = False
    if abs(columns[2]) > abs(columns[1]):
        tokens, planes = tokens.transpose(0, 2, 1, 3), _transposed(planes)
        columns, rows, turned = rows, columns, True
    if rows[2] > 0:
        tokens, planes, turned = tokens[:, ::-1], _flipped(planes, rows=True), True
    if columns[1] < 0:
        tokens, planes, turned = tokens[:, :, ::-1], _flipped(planes, rows=False), True
    order = np.argsort(planes.positions_mm[:, 0], kind="stable")
    return SeriesGrid(grid.series_id, grid.kind, tokens[order], planes.take(order)), turned


def kind_of_series(description: str | None, echo_time_ms: float | None = None) -> str | None:
    """Return which of `KINDS` a sagittal MR series is, or None.

    By its description (``T1``, ``T2``, ``STIR``); without one that says it, by the echo time of a spin echo.

    Examples
    --------
    >>> kind_of_series("Sagittal T2/STIR"), kind_of_series(None, 11.0), kind_of_series("Sag PD", 40.0)
    ('T2', 'T1', None)
    """
    words = (description or "").upper()
    said = {"T1": "T1" in words, "T2": "T2" in words or "STIR" in words}
    if sum(said.values()) == 1:
        return "T1" if said["T1"] else "T2"
    if echo_time_ms is None or sum(said.values()):
        return None
    return "T1" if echo_time_ms < _T1_BELOW_MS else "T2" if echo_time_ms >= _T2_FROM_MS else None


def _transposed(planes: SlicePlanes) -> SlicePlanes:
    swapped = np.concatenate([planes.orientations[:, 3:], planes.orientations[:, :3]], axis=1)
    return SlicePlanes(swapped, planes.positions_mm, planes.spacings_mm[:, ::-1], planes.shapes_px[:, ::-1])


def _flipped(planes: SlicePlanes, *, rows: bool) -> SlicePlanes:
    last = planes.shapes_px[:, ::-1] - 1
    last = last * (np.array([0, 1]) if rows else np.array([1, 0]))
    corner = pixel_to_patient_mm(last, planes.orientations, planes.positions_mm, planes.spacings_mm)
    sign = np.array([1, 1, 1, -1, -1, -1]) if rows else np.array([-1, -1, -1, 1, 1, 1])
    return SlicePlanes(planes.orientations * sign, corner, planes.spacings_mm, planes.shapes_px)
