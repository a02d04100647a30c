"""What a scan says of a block of rows: scores, and by how much a cosine may differ from them.

A scan need not be exact, it must know how wrong it can be. A row whose score plus that bound stays below a cosine that
`k` other rows are known to reach is none of the `k` nearest, whatever its cosine is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BlockScores:
    """Scores of some rows for each query: a cosine is within a bound of ``base + factor * values``.

    The bound of a query and a row is ``left * of_left + bound``.

    Parameters
    ----------
    values
        (queries, rows) float32 or float64.
    base, factor, bound, of_left
        (queries,) float64; factors are above 0.
    left
        (rows,) at least 0.
    """

    values: npt.NDArray[np.floating]
    base: Floats
    factor: Floats
    bound: Floats
    of_left: Floats
    left: npt.NDArray[np.floating]

    def that_may_reach(self, cosines: Floats) -> tuple[Rows, Rows]:
        """Return query and row of every pair whose cosine may be as large as the query's in `cosines`, (queries,)."""
        most = self.bound + self.of_left * float(self.left.max(initial=0))
        least = (cosines - most - self.base) / self.factor
        # Rounded down, so that no pair is lost on the way to single precision.
        kind = self.values.dtype.type
        reached = self.values >= np.nextafter(least.astype(kind), kind(-np.inf))[:, None]
        return np.divmod(np.flatnonzero(reached), self.values.shape[1])

    def of_pairs(self, queries: Rows, rows: Rows) -> tuple[Floats, Floats]:
        """Return the least and the largest that the cosine of each pair may be, (pairs,)."""
        scores = self.base[queries] + self.factor[queries] * self.values[queries, rows]
        bounds = self.bound[queries] + self.of_left[queries] * self.left[rows]
        return scores - bounds, scores + bounds

    def surely_reached(self, k: int, left_out: npt.NDArray[np.bool_] | None) -> Floats:
        """Return, (queries,), a cosine that at least `k` of the rows reach; minus infinity where there are fewer.

        Parameters
        ----------
        k
            At least 1.
        left_out
            (queries, rows) which rows a query cannot find, if any.
        """
        queries, rows = self.values.shape
        if rows < k:
            return np.full(queries, -np.inf)
        values = self.values if left_out is None else np.where(left_out, -np.inf, self.values)
        kth = np.partition(values, rows - k, axis=1)[:, rows - k].astype(np.float64)
        most = self.bound + self.of_left * float(self.left.max(initial=0))
        return self.base + self.factor * kth - most


class Scan(Protocol):
    """Vectors prepared for cheap scores."""

    def taken(self, rows: Rows) -> Scan:
        """Return a scan of some rows, given by (n,) ascending numbers, which then count from 0."""
        ...

    def scores_of(self, queries: Floats) -> Scores:
        """Prepare (m, dim) queries."""
        ...


class Scores(Protocol):
    """A scan for certain queries."""

    def of_rows(self, rows: slice) -> BlockScores:
        """Return the scores of some rows in turn; the next call may overwrite them."""
        ...


def lengths_of(vectors: npt.NDArray[Any]) -> Floats:
    """Return the length of each of (n, dim) float64 vectors, a function of that vector alone."""
    lengths: Floats = np.sqrt((vectors * vectors).sum(axis=1))
    return lengths
