"""What a scan says of a block of rows: scores, and by how much a cosine may differ from them.

A scan need not be exact, it must know how wrong it can be. A row whose score plus that bound stays below a cosine that
`k` other rows are known to reach is none of the `k` nearest, whatever its cosine is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BlockScores:
    """Scores of some rows for each query: a cosine is within `bound` of ``base + factor * values``.

    Parameters
    ----------
    values
        (rows, queries) float32 or float64.
    base, factor, bound
        (queries,) float64; factors are above 0.
    """

    values: npt.NDArray[np.floating]
    base: Floats
    factor: Floats
    bound: Floats

    def that_may_reach(self, cosines: Floats) -> tuple[Rows, Rows]:
        """Return row and query of every pair whose cosine may be as large as the query's in `cosines`, (queries,)."""
        least = (cosines - self.bound - self.base) / self.factor
        # Rounded down, so that no pair is lost on the way to single precision.
        kind = self.values.dtype.type
        reached = self.values >= np.nextafter(least.astype(kind), kind(-np.inf))
        rows, queries = np.nonzero(reached)
        return rows, queries

    def surely_reached(self, k: int, left_out: npt.NDArray[np.bool_] | None) -> Floats:
        """Return, (queries,), a cosine that at least `k` of the rows reach; minus infinity where there are fewer."""
        rows, queries = self.values.shape
        if rows < k:
            return np.full(queries, -np.inf)
        values = self.values if left_out is None else np.where(left_out, -np.inf, self.values)
        kth = np.partition(np.ascontiguousarray(values.T), rows - k, axis=1)[:, rows - k]
        return self.base + self.factor * kth.astype(np.float64) - self.bound


class Scan(Protocol):
    """Vectors prepared for cheap scores."""

    def scores_of(self, queries: Floats) -> Scores:
        """Prepare (m, dim) queries of length 1 or 0."""
        ...


class Scores(Protocol):
    """A scan for certain queries."""

    def of_rows(self, rows: Rows | slice) -> BlockScores:
        """Return the scores of some rows, given by a slice or by (n,) numbers."""
        ...
