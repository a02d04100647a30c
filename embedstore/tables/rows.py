"""Rows of a user's table: columns of text or numbers, where each row stands, and what was said about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.tables.remarks import Remark

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Rows:
    """The content of a table file.

    Parameters
    ----------
    path
        The file.
    table
        One column for each of the file's, of `pyarrow.string`, int64 or float64; an empty cell is null. Cells of
        text files are text, so that a patient ``007`` keeps its zeros.
    place
        Number of a row of the file, from 0 -> where it stands, for messages (``line 12``).
    numbers
        For each row the number of the file's row it comes from; None where they are the same.
    remarks
        What was guessed, normalised or left out so far.
    nested
        Names of the file's columns that were left out because their cells are lists or structures.
    """

    path: Path
    table: pa.Table
    place: Callable[[int], str]
    numbers: pa.Array | None = None
    remarks: tuple[Remark, ...] = ()
    nested: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def columns(self) -> Mapping[str, list[Cell]]:
        """Column name -> one cell per row; a column becomes a list when it is first asked for."""
        return _Columns(self.table)

    @property
    def places(self) -> Sequence[str]:
        """For each row where it stands."""
        return _Places(self)

    def where(self, row: int) -> str:
        """Name the file and the place of a row."""
        return f"{self.path}: {self.place_of(row)}"

    def place_of(self, row: int) -> str:
        """Return where a row stands."""
        return self.place(row if self.numbers is None else int(self.numbers[row].as_py()))

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column as Arrow has it."""
        return self.table.column(name)

    def saying(self, *remarks: Remark) -> Rows:
        """Return the rows with more remarks."""
        return replace(self, remarks=(*self.remarks, *remarks)) if remarks else self

    def with_column(self, name: str, cells: pa.Array | pa.ChunkedArray, *remarks: Remark) -> Rows:
        """Return the rows with a column replaced or added, and what is to be said about it."""
        names = self.table.column_names
        table = (
            self.table.set_column(names.index(name), name, cells)
            if name in names
            else self.table.append_column(name, cells)
        )
        return replace(self, table=table, remarks=(*self.remarks, *remarks))

    def take(self, rows: pa.Array) -> Rows:
        """Return the rows of these numbers, in that order; a row may be taken several times."""
        numbers = rows if self.numbers is None else self.numbers.take(rows)
        return replace(self, table=self.table.take(rows), numbers=numbers.cast(pa.int64()))


def as_text(cell: Cell) -> str | None:
    """Write a cell as text; a whole number has no decimals, whatever the column's type made of it."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


class _Columns(Mapping[str, list[Cell]]):
    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._lists: dict[str, list[Cell]] = {}

    def __getitem__(self, name: str) -> list[Cell]:
        if name not in self._lists:
            if name not in self._table.column_names:
                raise KeyError(name)
            self._lists[name] = self._table.column(name).to_pylist()
        return self._lists[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_columns)


class _Places(Sequence[str]):
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __getitem__(self, row: Any) -> Any:
        return self._rows.place_of(row)

    def __len__(self) -> int:
        return len(self._rows)
