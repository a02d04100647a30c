"""Scans by a plain product: nothing to prepare, for the first few queries and for any processor."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedstore.similarity.scan import BlockScores, Floats, Rows, lengths_of

_PIECE_ROWS = 256  # widened at once by a thread: 1.2 MB of float32 at 1,152 numbers
_FEW_QUERIES = 8


@dataclass(frozen=True, eq=False)
class PlainScan:
    """A product in float32.

    Parameters
    ----------
    vectors
        (n, dim) float16 or float32.
    unit
        Whether a vector counts as one of length one, as `embedstore.similarity.exact_search.ExactSearch`.
    rows
        (k,) int64 the rows that are scanned, by default all.
    """

    vectors: npt.NDArray[np.floating]
    unit: bool = False
    rows: Rows | None = None

    def taken(self, rows: Rows) -> PlainScan:
        """Return a scan of some rows."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def scores_of(self, queries: Floats) -> _PlainScores:
        """Prepare (m, dim) queries of length 1 or 0."""
        return _PlainScores(self, queries.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _PlainScores:
    scan: PlainScan
    queries: npt.NDArray[np.float32]

    def of_rows(self, rows: slice) -> BlockScores:
        some = _rows_of(self.scan.vectors, self.scan.rows, rows)
        count, dim = self.queries.shape
        values = np.empty((count, len(some)), np.float32)

        def score(start: int) -> None:
            piece = some[start : start + _PIECE_ROWS].astype(np.float32)
            values[:, start : start + _PIECE_ROWS] = self._cosines(piece)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(score, range(0, len(some), _PIECE_ROWS)))
        # Higham 2002, (3.5): a sum of n terms in any order is off by less than n u / (1 - n u) of the lengths' product.
        # The product, the length's half of it, and the few roundings of units stay below twice that.
        return _within(values, 2 * (dim + 8) * 2.0**-24)

    def _cosines(self, piece: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (queries, rows) cosines in single precision, 0 for a row without length."""
        lengths = np.ones(len(piece), np.float32)
        if not self.scan.unit:
            # The largest number becomes 1 first, so that no square leaves single precision.
            largest = np.abs(piece).max(axis=1, keepdims=True)
            piece /= np.where(largest > 0, largest, 1)
            lengths = np.sqrt(np.einsum("ij,ij->i", piece, piece))
        # A BLAS would wake all its threads for each of the pieces.
        few = len(self.queries) <= _FEW_QUERIES
        products = np.einsum("kj,ij->ki", self.queries, piece) if few else self.queries @ piece.T
        cosines: npt.NDArray[np.float32] = np.divide(
            products, lengths, out=np.zeros_like(products), where=lengths > 0
        )
        return cosines


@dataclass(frozen=True, eq=False)
class WideScan:
    """A product in float64, off by less than 1e-12: where nothing cheaper tells the rows apart.

    Parameters
    ----------
    vectors, unit, rows
        As `PlainScan`.
    """

    vectors: npt.NDArray[np.floating]
    unit: bool = False
    rows: Rows | None = None

    def taken(self, rows: Rows) -> WideScan:
        """Return a scan of some rows."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def scores_of(self, queries: Floats) -> _WideScores:
        """Prepare (m, dim) queries of length 1 or 0."""
        return _WideScores(self, queries)


@dataclass(frozen=True, eq=False)
class _WideScores:
    scan: WideScan
    queries: Floats

    def of_rows(self, rows: slice) -> BlockScores:
        some = _rows_of(self.scan.vectors, self.scan.rows, rows).astype(np.float64)
        lengths = np.ones(len(some)) if self.scan.unit else lengths_of(some)
        products = self.queries @ some.T
        values = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
        return _within(values, self.queries.shape[1] * 2.0**-51)


def _rows_of(vectors: npt.NDArray[np.floating], taken: Rows | None, rows: slice) -> npt.NDArray[np.floating]:
    some: npt.NDArray[np.floating] = vectors[rows if taken is None else taken[rows]]
    return some


def _within(values: npt.NDArray[np.floating], bound: float) -> BlockScores:
    """Return scores that are cosines but for a bound."""
    queries, rows = values.shape
    zero, one = np.zeros(queries), np.ones(queries)
    return BlockScores(values, zero, one, np.full(queries, bound), zero, np.zeros(rows))
