"""The vectors of a store where they lie, by the rows of the store; and what says that they are still the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedstore.errors import UsageError
from embedstore.similarity.mapped_rows import MappedRows, RowFile
from embedstore.similarity.scan import Rows
from embedstore.store.layout import VECTORS
from embedstore.store.reader import Store


@dataclass(frozen=True)
class ChunkState:
    """A finished chunk: its rows of the store, and the checksum of its vectors.

    Parameters
    ----------
    start, stop
        Rows of the store, `stop` excluded.
    crc32c
        Of the vectors, as the receipt has it.
    failed
        Rows of the store without a vector.
    """

    start: int
    stop: int
    crc32c: int
    failed: tuple[int, ...] = ()

    def rows(self) -> Rows:
        """Return the rows that have a vector."""
        return np.setdiff1d(np.arange(self.start, self.stop), np.array(self.failed, np.int64))

    def to_json(self) -> list[object]:
        """Return plain JSON values."""
        return [self.start, self.stop, self.crc32c, list(self.failed)]


def chunk_states(store: Store) -> dict[str, ChunkState]:
    """Return the finished chunks of a store by part and number."""
    return {
        f"{part.plan.number}/{number}": ChunkState(
            start=offset + receipt.start,
            stop=offset + receipt.stop,
            crc32c=receipt.arrays[VECTORS].crc32c,
            failed=tuple(offset + row for row in receipt.failed),
        )
        for offset, part in store.offsets()
        for number, receipt in sorted(part.receipts.items())
    }


def states_from_json(document: Mapping[str, list[object]]) -> dict[str, ChunkState]:
    """Return what `ChunkState.to_json` was made of; raises TypeError or ValueError for anything else."""
    states = {}
    for name, (start, stop, crc, failed) in document.items():
        if not isinstance(failed, list):
            raise TypeError(name)
        states[name] = ChunkState(int(str(start)), int(str(stop)), int(str(crc)), tuple(map(int, failed)))
    return states


def can_be_mapped(store: Store) -> bool:
    """Whether all parts of a store are of one dtype."""
    return len({part.plan.arrays[VECTORS].numpy_dtype for part in store.parts}) <= 1


def mapped_vectors(store: Store) -> MappedRows:
    """Return the vectors of a store by its rows; those of a chunk that is not finished must not be asked for.

    Raises
    ------
    UsageError
        If parts are of several dtypes.
    """
    kinds = {part.plan.arrays[VECTORS].numpy_dtype for part in store.parts} or {np.dtype(np.float16)}
    if len(kinds) > 1:
        raise UsageError(
            f"store {store.path} has parts of {' and '.join(sorted(map(str, kinds)))}, which lists do not join: it can "
            "only be searched exactly"
        )
    files = []
    for part in store.parts:
        plan = part.plan
        array = plan.arrays[VECTORS]
        for chunk in range(plan.chunks):
            rows = min(plan.chunk_rows, plan.rows - chunk * plan.chunk_rows)
            files.append(RowFile(part.layout.chunk_name(VECTORS, array, chunk), rows))
    return MappedRows(files, store.identity.dim, kinds.pop())
