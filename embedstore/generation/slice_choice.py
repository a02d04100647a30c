"""Which slices of a lumbar study a generative model is shown: so many of each view, by where they lie, without labels.

The views and their numbers are those of https://huggingface.co/LamNH147/medgemma-lumbar-finetune, which takes the
middle sagittal T2 slice for the canal, two sagittal T1 slices beside it for the foramina and one axial T2 slice for
each disc, from the competition's coordinates. These exist for training studies only, so slices are chosen by position
here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError
from embedstore.queries.manifest_columns import column_text

# View -> the words by which a prompt names it, in the order in which a model sees them.
VIEWS = {"sagittal-t2": "Sagittal T2", "sagittal-t1": "Sagittal T1", "axial-t2": "Axial T2"}
DEFAULT_IMAGES = "8"
_EXAMPLE = "sagittal-t2=1,sagittal-t1=2,axial-t2=5"
# A number of images is dealt out in this order, again and again: 8 are 1, 2 and 5 of the views above.
_DEALT = (
    "sagittal-t2",
    "axial-t2",
    "sagittal-t1",
    "axial-t2",
    "axial-t2",
    "sagittal-t1",
    "axial-t2",
    "axial-t2",
)
# Parts of a sagittal stack, from the patient's right (0) to the left (1), over which several slices are spread.
_SPREAD = {"sagittal-t2": (0.4, 0.6), "sagittal-t1": (0.25, 0.75)}
_MOST_IMAGES = 256
# Echo times of spin echoes: T1 weighting is short, T2 long; what lies between is neither for certain.
_LONGEST_T1_MS, _SHORTEST_T2_MS = 30.0, 60.0
_T1, _T2 = re.compile(r"\bt1|t1\b", re.IGNORECASE), re.compile(r"\bt2|t2\b|stir", re.IGNORECASE)
_NUMBERS = ("position_mm", "position_fraction", "slice_index", "instance_number", "echo_time_ms")


@dataclass(frozen=True)
class SliceRule:
    """How many slices of each view a study shows.

    Parameters
    ----------
    counts
        View -> how many, each view of `VIEWS` once.

    Examples
    --------
    >>> str(slice_rule("8"))
    'sagittal-t2=1,sagittal-t1=2,axial-t2=5'
    """

    counts: Mapping[str, int]

    def __str__(self) -> str:
        return ",".join(f"{view}={count}" for view, count in self.counts.items() if count)


@dataclass(frozen=True)
class Chosen:
    """A slice that is shown: its row in the table, and its view."""

    row: int
    view: str


def slice_rule(text: str) -> SliceRule:
    """Read ``8``, or ``sagittal-t2=1,sagittal-t1=2,axial-t2=5``.

    A number alone is dealt out over the views: sagittal T2, axial T2, sagittal T1, axial, axial, sagittal T1, axial,
    axial, and from the beginning again.

    Raises
    ------
    UsageError
        If it is neither, names another view or one twice, or leaves no image or more than 256.
    """
    wanted = f"`images` must be a number, such as 8, or one for each view, such as {_EXAMPLE}"
    if re.fullmatch(r"\s*\d{1,6}\s*", text):
        number = int(text)
        if not 1 <= number <= _MOST_IMAGES:
            raise UsageError(f"`images` must be from 1 to {_MOST_IMAGES}; found {number}")
        dealt = Counter(_DEALT[turn % len(_DEALT)] for turn in range(number))
        return SliceRule({view: dealt[view] for view in VIEWS})
    counts: dict[str, int] = {}
    for entry in text.split(","):
        view, _, count = (word.strip() for word in entry.partition("="))
        if view not in VIEWS or view in counts or not re.fullmatch(r"\d{1,6}", count):
            raise UsageError(f"{wanted}; found {text!r}")
        counts[view] = int(count)
    if not 1 <= sum(counts.values()) <= _MOST_IMAGES:
        raise UsageError(f"{wanted}, {_MOST_IMAGES} in all at most; found {text!r}")
    return SliceRule({view: counts.get(view, 0) for view in VIEWS})


class StudySlices:
    """The slices of a store by study and view.

    Parameters
    ----------
    table
        Rows of a manifest, those that may be shown.
    holder
        What they are of, for messages.

    Raises
    ------
    DataError
        If the table does not say of any slice which view it is.
    """

    def __init__(self, table: pa.Table, *, holder: str) -> None:
        self._series = column_text(table, "series_id")
        self._stacks = column_text(table, "stack")
        self._numbers = {name: _numbers(table, name) for name in _NUMBERS}
        self._views = _views(table, self._numbers["echo_time_ms"])
        if table.num_rows and not (self._views != "").any():
            raise DataError(
                f"{holder} must say which slices are sagittal T1, sagittal T2 and axial T2, by the columns plane and "
                "series_description (or echo_time_ms); found none. Extract the study folders with the data set "
                "rsna-lumbar or dicom-folder"
            )

    def choose(self, rows: npt.NDArray[np.int64], rule: SliceRule) -> tuple[Chosen, ...]:
        """Choose slices of a study.

        Of each view the series with the most slices counts, the first of several. A sagittal view shows its largest
        stack: one slice is the middle one, several are spread evenly, of T2 over the middle fifth and of T1 over the
        middle half, where the foramina are; they stand from the patient's right to the left. Axial slices are spread
        evenly over all of the series, stack by stack, from head to foot, the middle one of each equal share. Fewer
        slices than asked for are all shown.

        Parameters
        ----------
        rows
            The study's rows in the table.
        rule
            How many of each view.
        """
        found: list[Chosen] = []
        for view, count in rule.counts.items():
            of_view = rows[self._views[rows] == view]
            if not count or not len(of_view):
                continue
            series = _largest(of_view, self._series)
            ordered = self._axial_order(series) if view.startswith("axial") else self._sagittal_order(series)
            wanted = _targets(view, min(count, len(ordered)))
            if not view.startswith("axial"):
                places = self._fractions(ordered)
            else:
                # Ranks, so that a stack for each disc is shown by its middle slice.
                places = (np.arange(len(ordered)) + 0.5) / len(ordered)
            found += [Chosen(int(ordered[at]), view) for at in _nearest(places, wanted)]
        return tuple(found)

    def _sagittal_order(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        stack = _largest(rows, self._stacks)
        return stack[np.argsort(self._along(stack), kind="stable")]

    def _axial_order(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        along = self._along(rows)
        height = {
            stack: float(along[self._stacks[rows] == stack].mean())
            for stack in set(self._stacks[rows].tolist())
        }
        of_stack = np.array([height[stack] for stack in self._stacks[rows].tolist()])
        return rows[np.lexsort((np.arange(len(rows)), -along, -of_stack))]

    def _along(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return where slices lie along their axis, in mm, or without a geometry in the order of their numbers."""
        for name in ("position_mm", "slice_index", "instance_number"):
            values = self._numbers[name][rows]
            if np.isfinite(values).all():
                return values
        return np.arange(len(rows), dtype=np.float64)

    def _fractions(self, ordered: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        known = self._numbers["position_fraction"][ordered]
        if np.isfinite(known).all():
            return known
        return np.linspace(0, 1, len(ordered)) if len(ordered) > 1 else np.array([0.5])


def _views(table: pa.Table, echo_times_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    """Return the view of each row, ``""`` where it is none of `VIEWS` or not known."""
    described = column_text(table, "series_description").tolist()
    planes = column_text(table, "plane").tolist()
    views = []
    for words, plane, echo_ms in zip(described, planes, echo_times_ms.tolist(), strict=True):
        # The description says which plane was meant where the geometry is broken.
        where = plane or next((name for name in ("sagittal", "axial") if name[:3] in words.lower()), "")
        view = f"{where}-{_weighting(words, echo_ms)}"
        views.append(view if view in VIEWS else "")
    return np.array(views, np.str_)


def _weighting(words: str, echo_ms: float) -> str:
    is_t1, is_t2 = bool(_T1.search(words)), bool(_T2.search(words))
    if is_t1 != is_t2:
        return "t1" if is_t1 else "t2"
    return "t1" if echo_ms <= _LONGEST_T1_MS else "t2" if echo_ms >= _SHORTEST_T2_MS else ""


def _largest(rows: npt.NDArray[np.int64], groups: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return the rows of the group with the most of them, the first of several."""
    counts = Counter(groups[rows].tolist())
    largest = max(counts, key=lambda name: counts[name])
    kept: npt.NDArray[np.int64] = rows[groups[rows] == largest]
    return kept


def _targets(view: str, count: int) -> npt.NDArray[np.float64]:
    if view in _SPREAD:
        return np.array([0.5]) if count == 1 else np.linspace(*_SPREAD[view], count)
    return (np.arange(count) + 0.5) / count


def _nearest(places: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> Sequence[int]:
    """Return for each wanted place the nearest that is not taken yet, ascending; the first of two equals."""
    taken: list[int] = []
    for place in wanted.tolist():
        away = np.abs(places - place).round(9)
        away[taken] = np.inf
        taken.append(int(np.argmin(away)))
    return sorted(taken)


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table.column(name)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return np.full(table.num_rows, np.nan)
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
