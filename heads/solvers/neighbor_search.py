"""Exact cosine search whose answer does not depend on the batch: single precision proposes, whole numbers decide.

Unit vectors are kept as float16, whose values are whole multiples of 2**-24. Queries are rounded to the same
grid, so a cosine is a sum of whole numbers below 2**53: exact in float64 in any order. A product in float32
only proposes candidates; where its rounding could hide a neighbour, the row is scanned again in whole.

The product is torch's and not FAISS's, with which the tests compare it: the BLAS inside FAISS's wheel does not
know recent processors and takes its oldest kernel there, which made whole folds six times slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from heads.exact_products import reproducible_norms
from heads.scores import Floats

# Candidates beyond k: enough that on embeddings next to no row has to be scanned again.
_EXTRA_CANDIDATES = 32
_GRID = 2.0**24
_ROWS = 4096
# Vectors in single precision at once.
_WIDENED_ROWS = 4096
# Rows re-ranked at once: (rows, candidates, dim) float64 cells.
_RANK_CELLS = 1 << 22


@dataclass(frozen=True)
class Gallery:
    """Vectors to be found.

    Parameters
    ----------
    vectors
        (n, dim) float16 of `unit_vectors`.
    groups
        (n,) int64, for `search_outside`.
    among
        (k,) int64 the vectors that may be found, by default all; a found row then counts from 0 to k - 1.
    """

    vectors: npt.NDArray[np.float16]
    groups: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    among: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.vectors if self.among is None else self.among)

    def search(self, X: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the nearest rows of each query by cosine, largest first; of equals the earlier row.

        Parameters
        ----------
        X
            (m, dim) vectors of any length.
        k
            How many, 1 to the number of vectors.

        Returns
        -------
        tuple
            (m, k) int64 rows and (m, k) float64 cosines; a query's bits depend on nothing but itself.
        """
        queries = np.rint(_unit(X) * _GRID)
        reach = min(k + _EXTRA_CANDIDATES, len(self))
        scanned, proposed = self._proposed(queries, reach)
        rows, cosines = self._ranked(queries, proposed, k)
        if reach < len(self):
            # A row that is no candidate has at most the last candidate's cosine, up to float32 rounding.
            hidden = scanned[:, -1] + queries.shape[1] * 2.0**-23
            unsure = np.flatnonzero(cosines[:, -1] <= hidden)
            step = max(1, _RANK_CELLS // len(self))
            for start in range(0, len(unsure), step):
                some = unsure[start : start + step]
                rows[some], cosines[some] = self._scanned(queries[some], k)
        return rows, cosines

    def search_outside(
        self, X: npt.NDArray[np.float32], k: int, own: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the nearest rows that are of another group than the query.

        As `search`, but with cosines in single precision, which need not be the same in another batch: for
        whole folds, where ranking again would take longer than the search.

        Parameters
        ----------
        X, k
            As `search`.
        own
            (m,) int64 group of each query.

        Returns
        -------
        tuple
            (m, k) int64 rows and (m, k) float64 cosines; row -1, cosine -1 where there is no other row.
        """
        groups, counts = self._sizes
        most = int(counts[np.isin(groups, own)].max(initial=0))
        cosines, rows = self._proposed(np.rint(_unit(X) * _GRID), min(k + most, len(self)))
        of_own = self._groups[rows] == own[:, None]
        return _nearest(np.where(of_own, -1, rows), np.where(of_own, -np.inf, cosines), k)

    def _proposed(self, queries: Floats, reach: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return (m, reach) cosines in single precision, largest first, and their rows."""
        some = torch.from_numpy((queries / _GRID).astype(np.float32))
        cosines = torch.empty((len(queries), 0))
        rows = torch.empty((len(queries), 0), dtype=torch.int64)
        # Widened some at a time: single precision of all would weigh twice what is kept.
        for start in range(0, len(self), _WIDENED_ROWS):
            # torch widens faster than NumPy.
            wide = torch.from_numpy(
                self._copied(np.arange(start, min(start + _WIDENED_ROWS, len(self))))
            ).float()
            found = some @ wide.T
            largest = torch.topk(found, min(reach, len(wide)), dim=1)
            cosines = torch.cat([cosines, largest.values], 1)
            rows = torch.cat([rows, largest.indices + start], 1)
            cosines, kept = torch.topk(cosines, min(reach, cosines.shape[1]), dim=1)
            rows = torch.gather(rows, 1, kept)
        return cosines.numpy(), rows.numpy()

    def _copied(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        return self.vectors[rows if self.among is None else self.among[rows]]

    @cached_property
    def _sizes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return np.unique(self._groups, return_counts=True)

    @cached_property
    def _groups(self) -> npt.NDArray[np.int64]:
        return self.groups if self.among is None else self.groups[self.among]

    def _ranked(
        self, queries: Floats, proposed: npt.NDArray[np.int64], k: int
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Order candidates by their exact cosine."""
        cosines = np.empty(proposed.shape)
        step = max(1, _RANK_CELLS // (proposed.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), step):
            candidates = self._copied(proposed[start : start + step]).astype(np.float64)
            cosines[start : start + step] = (candidates @ queries[start : start + step, :, None])[:, :, 0]
        return _nearest(proposed, cosines / _GRID, k)

    def _scanned(self, queries: Floats, k: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Order all rows by their exact cosine."""
        cosines = np.concatenate(
            [
                queries @ self._copied(rows).astype(np.float64).T
                for rows in np.array_split(np.arange(len(self)), len(self) // _ROWS + 1)
            ],
            axis=1,
        )
        everyone = np.broadcast_to(np.arange(len(self)), cosines.shape)
        return _nearest(everyone, cosines / _GRID, k)


def unit_vectors(X: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return (n, dim) float16 vectors of length one; a zero vector stays zero.

    Half precision moves a cosine by about 1e-5, far below any temperature, and halves what a run keeps.
    """
    units = np.empty(X.shape, np.float16)
    for start in range(0, len(X), _ROWS):
        units[start : start + _ROWS] = _unit(X[start : start + _ROWS])
    return units


def _nearest(
    rows: npt.NDArray[np.int64], cosines: npt.NDArray[np.floating], k: int
) -> tuple[npt.NDArray[np.int64], Floats]:
    order = np.lexsort((rows, -cosines), axis=1)[:, :k]
    nearest, largest = np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)
    return nearest, np.where(nearest < 0, -1.0, largest).astype(np.float64)


def _unit(X: npt.NDArray[np.float32]) -> Floats:
    lengths = reproducible_norms(X)
    rows = X.astype(np.float64)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
