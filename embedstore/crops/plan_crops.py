"""From slices and level points to crops: for each level the parts of slices that show its canal and foramina."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.crops.slice_choice import SeriesSlices, ShownPoint
from embedstore.crops.weightings import weightings
from embedstore.geometry import FloatArray, directions, planes, split_stacks
from embedstore.images.crop import CropBox
from embedstore.lumbar.crop_rule import CropRule
from embedstore.lumbar.level_points import ALL_LEVELS, LevelPoints
from embedstore.lumbar.weighting_words import T1, T2
from embedstore.slices.planes import SlicePlanes, planes_of_table

LEFT, RIGHT, MIDDLE = "left", "right", "middle"
# What a crop's columns and rows grow towards: from front to back and head to feet; from right to left, front to back.
_SHOWN_ALONG = {
    "sagittal": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]),
    "axial": np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
}
_PLACES_PX = 4  # decimals: less than any header says
_Wanted = tuple[str, str, int]  # level, side, row of the level points


@dataclass(frozen=True)
class CropKind:
    """A view of a level.

    Parameters
    ----------
    name
        Value of the column ``crop``.
    plane, weighting
        Of the series that show it.
    centres
        Side -> the structures that it is centred at, the first that the level has.
    """

    name: str
    plane: str
    weighting: str
    centres: Mapping[str, tuple[str, ...]]


CANAL = CropKind("canal_sagittal_t2", "sagittal", T2, {MIDDLE: ("canal",)})
FORAMEN = CropKind(
    "foramen_sagittal_t1", "sagittal", T1, {LEFT: ("left_foramen",), RIGHT: ("right_foramen",)}
)
AXIAL = CropKind(
    "axial_t2",
    "axial",
    T2,
    {LEFT: ("left_subarticular", "canal"), RIGHT: ("right_subarticular", "canal")},
)
KINDS = (CANAL, FORAMEN, AXIAL)


@dataclass(frozen=True, slots=True)
class PlannedCrop:
    """One crop.

    Parameters
    ----------
    row
        The slice: row of the manifest.
    point
        What it is centred at: row of the level points.
    kind
        Name of its `CropKind`.
    level, side
        What it shows.
    offset
        Of its slice from the nearest one, as `ShownPoint.offset`; where a right side is laid onto the left, in the
        mirrored patient.
    mirrored
        Whether it is the right side, laid onto the left.
    distance_mm
        Of its slice from the point.
    box
        Its place in the slice.
    """

    row: int
    point: int
    kind: str
    level: str
    side: str
    offset: int
    mirrored: bool
    distance_mm: float
    box: CropBox


@dataclass(frozen=True)
class CropPlan:
    """The crops of all studies, by row of the slice; crops of one slice follow each other.

    Parameters
    ----------
    crops
        The crops.
    absent
        What is missing, for people -> how often.
    """

    crops: Sequence[PlannedCrop]
    absent: Mapping[str, int]


def plan_crops(table: pa.Table, points: LevelPoints, rule: CropRule, *, source: str) -> CropPlan:
    """Choose slices and places of crops; no pixel is read.

    Every series of the right plane and weighting gives crops, also where a study has several of a kind. In each, the
    slice nearest to the point shows it, if it lies within 5 mm, and its neighbours in the same stack.

    Parameters
    ----------
    table
        Slices, as the manifest of a reader of DICOM has them: ids and `embedstore.slices.planes.COLUMNS`; what else it
        says of weighting (`embedstore.crops.weightings`).
    points
        Where the levels are; those of studies that `table` lacks are counted.
    rule
        Size and neighbours.
    source
        The data set, for messages.

    Raises
    ------
    DataError
        If a column of the geometry is not there, or a cell of it cannot be read.
    """
    slices = _Slices.of_table(table, source=source)
    rows_of_study: dict[str, list[int]] = {}
    for row in np.flatnonzero(slices.usable):
        rows_of_study.setdefault(slices.study[row], []).append(int(row))
    points_of_study: dict[str, list[int]] = {}
    for point, study in enumerate(points.study_ids.tolist()):
        points_of_study.setdefault(study, []).append(point)
    absent: Counter[str] = Counter()
    known = dict.fromkeys(study for study in slices.study if study)
    absent["studies without level points"] = sum(study not in points_of_study for study in known)
    absent["level points of unknown studies"] = sum(
        len(members) for study, members in points_of_study.items() if study not in known
    )
    absent["slices without a place in the patient"] = int((~slices.placed).sum())
    absent["slices neither T1 nor T2"] = int((slices.placed & (slices.weighting == "")).sum())
    crops: list[PlannedCrop] = []
    for study in known:
        if study in points_of_study:
            of_study = _Study(slices, rows_of_study.get(study, []), points, points_of_study[study], rule)
            crops += of_study.crops(absent)
    crops.sort(key=_order)
    return CropPlan(crops, {what: count for what, count in absent.items() if count})


_ORDER = {name: place for place, name in enumerate((*ALL_LEVELS, LEFT, RIGHT, MIDDLE))}


def _order(crop: PlannedCrop) -> tuple[int, str, int, int]:
    return crop.row, crop.kind, _ORDER[crop.level], _ORDER[crop.side]


@dataclass(frozen=True, eq=False)
class _Slices:
    """What planning needs of a manifest's rows."""

    study: list[str]
    series: list[str]
    planes: SlicePlanes
    plane: npt.NDArray[np.str_]
    weighting: npt.NDArray[np.object_]
    said_stack: npt.NDArray[np.int64]
    placed: npt.NDArray[np.bool_]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        usable: npt.NDArray[np.bool_] = self.placed & (self.weighting != "")
        return usable

    @classmethod
    def of_table(cls, table: pa.Table, *, source: str) -> _Slices:
        found = planes_of_table(table, source=source)
        placed = found.known
        plane = np.full(len(found), "", "<U8")
        if placed.any():
            plane[placed] = planes(found.orientations[placed])
        study, series = (
            [cell or "" for cell in table.column(name).to_pylist()] for name in ("study_id", "series_id")
        )
        stacks = table.column("stack").to_pylist() if "stack" in table.column_names else [0] * len(found)
        said = np.array([-1 if stack is None else int(stack) for stack in stacks], np.int64)
        placed &= np.array([bool(name) for name in series], bool)
        return cls(study, series, found, plane, weightings(table), said, placed)

    def of_series(self, rows: Sequence[int]) -> SeriesSlices:
        chosen = self.planes.take(rows)
        # Frames that an enhanced file assigns to different stacks are never one.
        said = self.said_stack[list(rows)]
        by_orientation = split_stacks(chosen.orientations)
        _, stacks = np.unique(np.stack([said, by_orientation]), axis=1, return_inverse=True)
        return SeriesSlices(chosen, stacks.ravel().astype(np.int64))


@dataclass(frozen=True)
class _Study:
    """One study's slices (rows of the manifest) and points (rows of the level points)."""

    slices: _Slices
    rows: Sequence[int]
    points: LevelPoints
    members: Sequence[int]
    rule: CropRule

    def crops(self, absent: Counter[str]) -> list[PlannedCrop]:
        """Return the crops of the study, and count what is missing."""
        place = {
            (str(self.points.structures[point]), str(self.points.levels[point])): point
            for point in self.members
        }
        levels = dict.fromkeys(level for _, level in place)
        found: list[PlannedCrop] = []
        for kind in KINDS:
            wanted = [
                (level, side, point)
                for level in levels
                for side, centres in kind.centres.items()
                if (point := next((place[at, level] for at in centres if (at, level) in place), None))
                is not None
            ]
            series = self._series_of(kind)
            if not series:
                absent[f"studies without {kind.plane} {kind.weighting}"] += 1
            for rows in series if wanted else ():
                found += self._crops_of_series(rows, kind, wanted, absent)
        return found

    def _crops_of_series(
        self, rows: Sequence[int], kind: CropKind, wanted: Sequence[_Wanted], absent: Counter[str]
    ) -> Iterator[PlannedCrop]:
        slices = self.slices.of_series(rows)
        shown_points = slices.show(
            self.points.xyz_mm[[point for _, _, point in wanted]],
            neighbours=self.rule.neighbours,
            # Sagittal slices of the right look like those of the left; their order is what a mirror turns around.
            mirrored=[side == RIGHT and kind.plane == "sagittal" for _, side, _ in wanted],
        )
        axes = axes_of(slices.planes.orientations, kind.plane)
        sides_px = (self.rule.size_mm / slices.planes.spacings_mm[:, ::-1]).tolist()
        for (level, side, point), shown in zip(wanted, shown_points, strict=True):
            if isinstance(shown, str):
                absent[f"{kind.name}: {shown}"] += 1
                continue
            mirrored = side == RIGHT
            for at in shown:
                turned = _mirrored(axes[at.row]) if mirrored and kind.plane == "axial" else axes[at.row]
                yield PlannedCrop(
                    row=rows[at.row],
                    point=point,
                    kind=kind.name,
                    level=level,
                    side=side,
                    offset=-at.offset if mirrored and kind.plane == "sagittal" else at.offset,
                    mirrored=mirrored,
                    distance_mm=round(at.distance_mm, 3),
                    box=_box_around(at, sides_px[at.row], turned),
                )

    def _series_of(self, kind: CropKind) -> list[list[int]]:
        """Return the rows of each series of a kind, in order."""
        series: dict[str, list[int]] = {}
        for row in self.rows:
            if self.slices.plane[row] == kind.plane and self.slices.weighting[row] == kind.weighting:
                series.setdefault(self.slices.series[row], []).append(row)
        return list(series.values())


def axes_of(orientations: FloatArray, plane: str) -> list[str]:
    """Return `embedstore.images.crop.CropBox.axes` of slices, (n,), so that all crops of a plane lie alike.

    Sagittal crops show the front on the left and the head on top; axial crops the patient's right on the left and the
    front on top. Rows and columns of a slice are reversed or exchanged for it, and never rotated by other angles.

    Parameters
    ----------
    orientations
        (n, 6) ImageOrientationPatient.
    plane
        ``sagittal`` or ``axial``.

    Examples
    --------
    >>> axes_of(np.array([[0, 1, 0, 0, 0, -1], [0, -1, 0, 0, 0, -1], [0, 0, 1, 0, 1, 0]]), "sagittal")
    ['+c+r', '-c+r', '+r-c']
    """
    towards_columns, towards_rows = _SHOWN_ALONG[plane]
    along_columns, along_rows = directions(orientations)
    straight = np.stack([along_columns @ towards_columns, along_rows @ towards_rows], axis=1)
    crossed = np.stack([along_rows @ towards_columns, along_columns @ towards_rows], axis=1)
    exchanged = np.abs(crossed).sum(axis=1) > np.abs(straight).sum(axis=1)
    signs = np.where(np.where(exchanged[:, None], crossed, straight) < 0, "-", "+")
    letters = np.where(exchanged[:, None], ["r", "c"], ["c", "r"])
    return ["".join(np.stack(pair, axis=1).ravel()) for pair in zip(signs, letters, strict=True)]


def _mirrored(axes: str) -> str:
    return ("+" if axes[0] == "-" else "-") + axes[1:]


def _box_around(point: ShownPoint, sides_px: Sequence[float], axes: str) -> CropBox:
    # Middle and half a side are rounded, not the edges: a mirrored slice then has the same box, to the last digit.
    half_width, half_height = (round(side / 2, _PLACES_PX) for side in sides_px)
    column, row = (round(place + 0.5, _PLACES_PX) for place in (point.column_px, point.row_px))
    return CropBox(
        left_px=round(column - half_width, _PLACES_PX),
        top_px=round(row - half_height, _PLACES_PX),
        width_px=round(2 * half_width, _PLACES_PX),
        height_px=round(2 * half_height, _PLACES_PX),
        axes=axes,
    )
