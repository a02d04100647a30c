"""Subgroups: which are formed, what their cells are called, in which order they stand, and from how many units on.

A task names manifest columns; each value of such a column is a cell. Everything that splits results by subgroup asks
here: the evaluation, the counts in ``run.json``, the report and the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

UNKNOWN = "unknown"
Cell = TypeVar("Cell")
# One unit makes a cell: its count is shown, and what cannot be said of it is left undefined by the metrics.
LEAST_UNITS = 1


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
        cells = np.array([str(value) or UNKNOWN for value in values[column][units]], np.str_)
        for cell in in_order(np.unique(cells).tolist()):
            members = np.flatnonzero(cells == cell)
            if len(members) >= LEAST_UNITS:
                yield Subgroup(column, cell, members)


def in_order(cells: Iterable[str]) -> list[str]:
    """Return names of cells as they are listed: by name, unknown last."""
    return sorted(cells, key=lambda cell: (cell == UNKNOWN, cell))


def listed(
    by_subgroup: Mapping[str, Mapping[str, Cell]], columns: Sequence[str]
) -> dict[str, dict[str, Cell]]:
    """Return what ``run.json`` holds by column and cell in the order of the task's columns, cells in order."""
    return {
        column: {cell: by_subgroup[column][cell] for cell in in_order(by_subgroup[column])}
        for column in columns
        if column in by_subgroup
    }
