"""Rows that lie in files, read when they are asked for: a million vectors need no memory of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.similarity.scan import Rows


@dataclass(frozen=True)
class RowFile:
    """Rows at the start of a file.

    Parameters
    ----------
    path
        The file.
    rows
        How many.
    kept
        Which of them count, ascending; None for all.
    """

    path: str
    rows: int
    kept: Rows | None = None

    @property
    def count(self) -> int:
        """How many count."""
        return self.rows if self.kept is None else len(self.kept)


@dataclass(frozen=True, eq=False)
class MappedRows:
    """An array of (n, dim) rows in files; rows are taken as from an array, by slices and whole numbers.

    Parameters
    ----------
    files
        Where the rows lie, one file after the other.
    dim
        Numbers of a row.
    dtype
        Of all files.
    """

    files: Sequence[RowFile]
    dim: int
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """(n, dim)."""
        return len(self), self.dim

    def __getitem__(self, rows: slice | Rows) -> npt.NDArray[Any]:
        """Return some rows, copied into memory.

        Parameters
        ----------
        rows
            A slice without step, or (m,) whole numbers in any order.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows, np.int64)
        taken = np.empty((len(rows), self.dim), self.dtype)
        owners = np.searchsorted(self._starts, rows, "right") - 1
        # Files in turn, each by its rows in order: they are read from front to back.
        order = np.lexsort((rows, owners))
        cuts = np.flatnonzero(np.diff(owners[order])) + 1
        for places in np.split(order, cuts) if len(order) else ():
            file = int(owners[places[0]])
            own = rows[places] - self._starts[file]
            kept = self.files[file].kept
            taken[places] = self._map(file)[own if kept is None else kept[own]]
        return taken

    def _map(self, file: int) -> npt.NDArray[Any]:
        described = self.files[file]
        return np.memmap(described.path, self.dtype, "r", shape=(described.rows, self.dim))

    @cached_property
    def _starts(self) -> Rows:
        return np.cumsum([0, *(file.count for file in self.files)]).astype(np.int64)
