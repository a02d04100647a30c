"""Exact cosine search whose answer does not depend on the batch: `embedstore.similarity` over unit vectors.

Unit vectors are kept as float16, whose values are whole multiples of 2**-24. Queries are rounded to the same
grid, so a cosine is a sum of whole numbers below 2**53: exact in float64 in any order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.similarity.exact_search import ExactSearch
from embedstore.similarity.ranking import GRID
from heads.exact_products import reproducible_norms
from heads.scores import Floats

_ROWS = 4096


class Gallery:
    """Vectors to be found; what is prepared for a search serves the next.

    Parameters
    ----------
    vectors
        (n, dim) float16 of `unit_vectors`.
    groups
        (n,) int64, or nothing: what `search` can leave out for a query.
    """

    def __init__(self, vectors: npt.NDArray[np.float16], groups: npt.NDArray[np.int64] | None = None) -> None:
        self.vectors = vectors
        self._exact = ExactSearch(vectors, groups, unit=True)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self,
        X: npt.NDArray[np.float32],
        k: int,
        *,
        among: npt.NDArray[np.int64] | None = None,
        outside: npt.NDArray[np.int64] | None = None,
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the nearest rows of each query by cosine, largest first; of equals the earlier row.

        Parameters
        ----------
        X
            (m, dim) vectors of any length.
        k
            How many, at least 1.
        among
            (a,) int64 the rows that may be found, ascending; by default all.
        outside
            (m,) int64 group of each query, whose rows it does not find.

        Returns
        -------
        tuple
            (m, k) int64 rows and (m, k) float64 cosines, which depend on nothing but the query and what it may
            find; row -1 and cosine -1 where there is no other row.
        """
        return self._exact.search(np.rint(_unit(X) / GRID) * GRID, k, among=among, outside=outside)


def unit_vectors(X: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return (n, dim) float16 vectors of length one; a zero vector stays zero.

    Half precision moves a cosine by about 1e-5, far below any temperature, and halves what a run keeps.
    """
    units = np.empty(X.shape, np.float16)
    for start in range(0, len(X), _ROWS):
        units[start : start + _ROWS] = _unit(X[start : start + _ROWS])
    return units


def _unit(X: npt.NDArray[np.float32]) -> Floats:
    lengths = reproducible_norms(X)
    rows = X.astype(np.float64)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
