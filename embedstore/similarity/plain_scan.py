"""A scan in single precision: nothing to prepare, for the first few queries and for any processor."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.similarity.scan import BlockScores, Floats, Rows

_PIECE_ROWS = 256  # widened at once by a thread: 1.2 MB of float32 at 1,152 numbers
_FEW_QUERIES = 8


@dataclass(frozen=True, eq=False)
class PlainScan:
    """A product in float32.

    Parameters
    ----------
    vectors
        (n, dim) float16 or float32.
    """

    vectors: npt.NDArray[np.floating]

    def scores_of(self, queries: Floats) -> _PlainScores:
        """Prepare (m, dim) queries of length 1 or 0."""
        return _PlainScores(self.vectors, queries.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _PlainScores:
    vectors: npt.NDArray[np.floating]
    queries: npt.NDArray[np.float32]

    def of_rows(self, rows: Rows | slice) -> BlockScores:
        some = self.vectors[rows]
        count, dim = self.queries.shape
        values = np.empty((len(some), count), np.float32)

        def score(start: int) -> None:
            piece = some[start : start + _PIECE_ROWS].astype(np.float32)
            values[start : start + _PIECE_ROWS] = _cosines(piece, self.queries)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(score, range(0, len(some), _PIECE_ROWS)))
        # Higham 2002, (3.5): a sum of n terms in any order is off by less than n u / (1 - n u) of the lengths' product.
        # The product, the length's half of it, and the few roundings of units stay below twice that.
        bound = np.full(count, 2 * (dim + 8) * 2.0**-24)
        return BlockScores(values, np.zeros(count), np.ones(count), bound)


def _cosines(piece: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (rows, queries) cosines in single precision, 0 for a row without length."""
    # The largest number becomes 1 first, so that no square leaves single precision.
    largest = np.abs(piece).max(axis=1, keepdims=True)
    piece /= np.where(largest > 0, largest, 1)
    lengths = np.sqrt(np.einsum("ij,ij->i", piece, piece))[:, None]
    # A BLAS would wake all its threads for each of the pieces.
    few = len(queries) <= _FEW_QUERIES
    products = np.einsum("ij,kj->ik", piece, queries) if few else piece @ queries.T
    cosines: npt.NDArray[np.float32] = np.divide(
        products, lengths, out=np.zeros_like(products), where=lengths > 0
    )
    return cosines
