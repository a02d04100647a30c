"""Subgroups: which are formed, what their cells are called, in which order they stand, and from how many units on.

A task names manifest columns; each value of such a column is a cell, or each band of numbers (`cells_of`). Everything
that splits results by subgroup asks here: the evaluation, the counts in ``run.json``, the comparison of runs, the
report and the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from embedstore.view import SEVERAL

UNKNOWN = "unknown"
Cell = TypeVar("Cell")
# One unit makes a cell: its count is shown, and what cannot be said of it is left undefined by the metrics.
LEAST_UNITS = 1
# Field strengths are categories, ages are not.
FEW_NUMBERS = 8
# Minors, and then steps of twenty years: the groups of ages in which reports on imaging AI state results.
AGE_CUTS = (18.0, 40.0, 60.0, 80.0)
_AGE_BANDS = ("0 to 17", "18 to 39", "40 to 59", "60 to 79", "80 and over")
_QUARTERS = (0.25, 0.5, 0.75)
# DICOM's age string (PS3.5, 6.2): days, weeks, months or years; in years.
_AGE = re.compile(r"(\d{3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_BAND = re.compile(r"(-?[\d.]+(?:e[+-]?\d+)?) (?:to |and over)|below (-?[\d.]+(?:e[+-]?\d+)?)$")


class Subgroup(NamedTuple):
    """The units of one cell.

    Parameters
    ----------
    column
        Manifest column.
    cell
        Its value, or `UNKNOWN` where there is none.
    units
        (n,) int64 rows.
    """

    column: str
    cell: str
    units: npt.NDArray[np.int64]


def subgroups_of(
    columns: Sequence[str], values: Mapping[str, npt.NDArray[np.str_]], units: npt.NDArray[Any]
) -> Iterator[Subgroup]:
    """Yield the subgroups of some units, column by column in the order of the task, cells in order.

    Parameters
    ----------
    columns
        Columns that the task names; those without values are passed over.
    values
        Column -> (n_units,) str, ``""`` where unknown.
    units
        Rows or mask of the wanted units; `Subgroup.units` counts within them.

    Examples
    --------
    >>> sides = {"side": np.array(["right", "", "left", "right"])}
    >>> [(group.cell, group.units.tolist()) for group in subgroups_of(["side"], sides, np.arange(4))]
    [('left', [2]), ('right', [0, 3]), ('unknown', [1])]
    """
    for column in columns:
        if column not in values:
            continue
        cells = cells_of(column, values[column])[units]
        for cell in in_order(np.unique(cells).tolist()):
            members = np.flatnonzero(cells == cell)
            if len(members) >= LEAST_UNITS:
                yield Subgroup(column, cell, members)


def cells_of(column: str, values: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """Return the name of each unit's cell.

    A value is its own cell, and an empty one `UNKNOWN`, but for a column of numbers with more than `FEW_NUMBERS`
    different ones: an age (a column whose name says so; ``045Y`` as in DICOM or years) is cut at `AGE_CUTS`, any other
    number at its quartiles over these units.

    Parameters
    ----------
    column
        Its name.
    values
        (n,) str of all units that are compared, so that bands are the same for each part of them.

    Examples
    --------
    >>> cells_of("age", np.array(["7", "30", "31", "32", "", "33", "45", "61", "79", "80", "93"])).tolist()[:5]
    ['0 to 17', '18 to 39', '18 to 39', '18 to 39', 'unknown']
    >>> cells_of("field_strength_t", np.array(["1.5", "3", "1.5"])).tolist()
    ['1.5', '3', '1.5']
    """
    plain = np.array([str(value) or UNKNOWN for value in values], np.str_)
    of_age = _says_age(column)
    numbers = np.array([_number(str(value), of_age) for value in values], np.float64)
    known = np.isfinite(numbers)
    named = (plain != UNKNOWN) & (plain != SEVERAL)
    if len(np.unique(numbers[known])) <= FEW_NUMBERS or (named & ~known).any():
        return plain
    cuts = AGE_CUTS if of_age else np.unique(np.quantile(numbers[known], _QUARTERS)).tolist()
    names = np.array(_AGE_BANDS if of_age else _bands(cuts), np.str_)
    return np.where(known, names[np.searchsorted(cuts, numbers, side="right").clip(0, len(cuts))], plain)


def _bands(cuts: Sequence[float]) -> list[str]:
    """Name what lies between cuts; a number that is one belongs to the band that begins with it."""
    between = [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
    return [f"below {cuts[0]:g}", *between, f"{cuts[-1]:g} and over"]


def _says_age(column: str) -> bool:
    return "age" in re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).lower())


def _number(value: str, of_age: bool) -> float:
    """Return a value as a number, NaN where it is none; of an age in years."""
    if of_age and (found := _AGE.fullmatch(value)):
        return int(found[1]) * _YEARS[found[2]]
    try:
        return float(value)
    except ValueError:
        return float("nan")


def in_order(cells: Iterable[str]) -> list[str]:
    """Return names of cells as they are listed: bands from low to high, others by name, unknown last."""
    return sorted(cells, key=lambda cell: (cell == UNKNOWN, _low(cell), cell))


def _low(cell: str) -> float:
    """Return where a band begins, so that 5 stands before 10; 0 for other cells, which stand by name."""
    found = _BAND.match(cell)
    if found is None:
        return 0.0
    return float("-inf") if found[1] is None else float(found[1])


def listed(
    by_subgroup: Mapping[str, Mapping[str, Cell]], columns: Sequence[str]
) -> dict[str, dict[str, Cell]]:
    """Return what ``run.json`` holds by column and cell in the order of the task's columns, cells in order."""
    return {
        column: {cell: by_subgroup[column][cell] for cell in in_order(by_subgroup[column])}
        for column in columns
        if column in by_subgroup
    }
