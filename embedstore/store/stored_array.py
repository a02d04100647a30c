"""One array of a store: its finished chunks as rows in memory, each checked against its receipt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.store.layout import VECTORS
from embedstore.store.part_reader import PENDING, VALID, Part
from embedstore.view import ArrayRows

if TYPE_CHECKING:
    from embedstore.store.reader import Store

_READ_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class StoredArray:
    """One array of an opened store; `Store.array` gives it.

    Parameters
    ----------
    store
        The store.
    name
        Name of the array.
    """

    store: Store
    name: str

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        identity = self.store.identity
        return (identity.dim,) if self.name == VECTORS else identity.arrays[self.name].row_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest dtype of the parts, in native byte order; float16 for an empty store."""
        plans = [part.plan.arrays[self.name] for part in self.store.parts]
        return np.result_type(np.float16, *(plan.numpy_dtype.newbyteorder("=") for plan in plans))

    def all(self, *, dtype: npt.DTypeLike | None = None) -> ArrayRows:
        """Return every row there is, in row order; failed and pending rows are left out.

        Parameters
        ----------
        dtype
            ``float16`` or ``float32``; by default as stored.

        Raises
        ------
        CorruptStore
            If any chunk's bytes are not the committed ones.
        """
        status = self.store.status
        values = self._empty(int((status != PENDING).sum()), dtype)
        jobs = self._placed_chunks()
        # Each thread fills one run of the result: neighbours would touch the same huge page for the first time
        # at once, and the kernel would clear it for both.
        runs = np.array_split(np.arange(len(jobs)), _READ_THREADS)
        rows = np.flatnonzero(status == VALID)
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            list(pool.map(lambda run: self._fill(values, [jobs[at] for at in run]), runs))
        if not (done_valid := (status == VALID)[status != PENDING]).all():
            values = values[done_valid]
        # Names after the threads: making them needs the interpreter's lock, which threads need between two reads.
        return ArrayRows(self.store.image_ids[rows], values, rows)

    def select(self, image_ids: Sequence[str], *, dtype: npt.DTypeLike | None = None) -> ArrayRows:
        """Return the rows of `image_ids`, in that order.

        Raises
        ------
        DataError
            If an id is unknown, not extracted yet, or failed; the message names the first one and says which.
        CorruptStore
            If the bytes of a chunk with one of them are not the committed ones.
        """
        rows = np.array([self.store.row_of_vector(image_id) for image_id in image_ids], dtype=np.int64)
        values = self._empty(len(rows), dtype)
        for offset, part in self.store.offsets():
            local = rows - offset
            inside = np.flatnonzero((local >= 0) & (local < part.plan.rows))
            chunks = local[inside] // part.plan.chunk_rows
            for chunk in np.unique(chunks):
                chosen = inside[chunks == chunk]
                found = part.read_chunk(int(chunk), array=self.name)
                values[chosen] = found[local[chosen] - chunk * part.plan.chunk_rows]
        names = self.store.image_ids[rows] if len(rows) else np.array([], dtype=object)
        return ArrayRows(names, values, rows)

    def _empty(self, count: int, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
        wanted = np.dtype(dtype) if dtype is not None else self.dtype
        if wanted not in (np.dtype(np.float16), np.dtype(np.float32)):
            raise UsageError(f"dtype must be float16 or float32; found {wanted}")
        return np.empty((count, *self.row_shape), dtype=wanted)

    def _placed_chunks(self) -> list[tuple[Part, int, int, int]]:
        """Return ``(part, chunk, first output row, end)`` of every finished chunk, packed without gaps."""
        placed, at = [], 0
        for part in self.store.parts:
            for chunk, receipt in sorted(part.receipts.items()):
                placed.append((part, chunk, at, at + receipt.stop - receipt.start))
                at += receipt.stop - receipt.start
        return placed

    def _fill(self, out: npt.NDArray[Any], jobs: Sequence[tuple[Part, int, int, int]]) -> None:
        """Read chunks into their rows of `out`."""
        for part, chunk, start, stop in jobs:
            if out.dtype == part.plan.arrays[self.name].numpy_dtype:
                part.read_chunk(chunk, array=self.name, out=out[start:stop])
            else:
                out[start:stop] = part.read_chunk(chunk, array=self.name)
