"""Votes of neighbours: their labels become scores, for every k and temperature at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.base import Training, learnable
from heads.scores import Floats
from heads.solvers.neighbor_search import Gallery

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Votes:
    """Labels and weights of the rows that vote, and the scores that their votes give.

    Parameters
    ----------
    labels
        (n,) int64; anything where there is no label.
    weights
        (n,) float32; a row with 0 is skipped.
    n_classes
        Number of classes.
    smoothing
        As `NeighborsHead`.
    """

    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    n_classes: int
    smoothing: float

    def voters(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of (n, found) rows vote; -1 is no row."""
        return np.asarray((rows >= 0) & (self.weights[rows] > 0))

    def scores(
        self,
        rows: npt.NDArray[np.int64],
        cosines: Floats,
        *,
        ks: Sequence[int],
        temperatures: Sequence[float],
    ) -> Floats:
        """Return (ks, temperatures, n, columns) logits from (n, found) neighbours, nearest first; -1 is none."""
        columns = 1 if self.n_classes == 2 else self.n_classes
        scores = np.empty((len(ks), len(temperatures), len(rows), columns))
        known = self.weights > 0
        shares = np.bincount(self.labels[known], self.weights[known], self.n_classes)
        # A class that no row has (of a target in a fold) is not at minus infinity.
        shares = np.maximum(shares / shares.sum(), 1e-6)
        voters = self.voters(rows)
        weight = np.where(voters, self.weights[rows], 0.0)
        # Where each k ends: at the k-th row that votes, or at the last that was found.
        rank = np.cumsum(voters, axis=1)
        before = np.stack([(rank < k).sum(1) for k in ks], axis=1)
        ends = np.minimum(before, rows.shape[1] - 1)
        for at, temperature in enumerate(temperatures):
            votes = weight * np.exp((cosines - cosines[:, :1]) / temperature)
            total, square = _sums(votes, ends), _sums(votes**2, ends)
            effective = np.divide(total**2, square, out=np.zeros_like(total), where=square > 0)
            logarithms = []
            for label in range(self.n_classes):
                own = _sums(votes * (self.labels[rows] == label), ends)
                share = np.divide(own, total, out=np.zeros_like(own), where=total > 0)
                logarithms.append(np.log(effective * share + self.smoothing * shares[label]))
            stacked = np.stack(logarithms, axis=-1).transpose(1, 0, 2)
            scores[:, at] = stacked[..., 1:] - stacked[..., :1] if columns == 1 else stacked
        return scores


def _sums(votes: Floats, ends: npt.NDArray[np.int64]) -> Floats:
    """Sum (n, found) votes up to each of (n, ks) ends: one by one in order of rank, the same bits in any batch."""
    return np.take_along_axis(np.cumsum(votes, axis=1), ends, axis=1)


@dataclass(frozen=True, kw_only=True)
class FoldNeighbors:
    """Neighbour search restricted to the training rows of one fold, one search for all targets.

    Neighbours without a label for a target are skipped. Only where so many labels are missing that too few
    neighbours remain, the rows labelled for that target are searched again for those queries.

    Parameters
    ----------
    training
        Vectors, labels, weights and groups of all rows.
    gallery
        Of all rows, with their groups.
    outside
        (k,) int64 rows that may vote, ascending.
    ks, temperatures, smoothing
        As `heads.estimators.neighbors.NeighborsFamily`.
    """

    training: Training
    gallery: Gallery
    outside: npt.NDArray[np.int64]
    ks: Sequence[int]
    temperatures: Sequence[float]
    smoothing: float

    def vote(self, queries: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> None:
        """Fill in the scores of some rows, by neighbours of another group.

        Parameters
        ----------
        queries
            (m,) int64 rows.
        scores
            (points, n, targets, columns) float32; only the cells of `queries` are written.
        """
        known = [learnable(self.training, target)[self.outside] for target in range(scores.shape[2])]
        some = self.outside[np.logical_or.reduce(known)]
        most = max(self.ks)
        # A quarter more than can vote where labels are missing: searching again costs more.
        reach = min(most if all(of.all() for of in known) else most * 5 // 4, len(some))
        votes_of_target = [self._votes(target, self.outside[of]) for target, of in enumerate(known)]
        lacking = np.zeros((len(known), len(queries)), np.bool_)
        for start in range(0, len(queries), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            rows, cosines = self._search(queries[block], reach, some)
            for target, votes in enumerate(votes_of_target):
                scores[:, queries[block], target] = self._grid(votes, rows, cosines)
                # The last place is empty (-1) where every row of another group was found.
                lacking[target, block] = (votes.voters(rows).sum(1) < most) & (rows[:, -1] >= 0)
        if reach == len(some):
            return
        for target in np.flatnonzero(lacking.any(1)).tolist():
            own, again = self.outside[known[target]], queries[lacking[target]]
            for start in range(0, len(again), _BLOCK_ROWS):
                block_rows = again[start : start + _BLOCK_ROWS]
                found = self._search(block_rows, min(most, len(own)), own)
                scores[:, block_rows, target] = self._grid(votes_of_target[target], *found)

    def _search(
        self, queries: npt.NDArray[np.int64], reach: int, among: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        X, groups = self.training.X[queries], self.training.groups[queries]
        return self.gallery.search(X, reach, among=among, outside=groups)

    def _grid(self, votes: Votes, rows: npt.NDArray[np.int64], cosines: Floats) -> Floats:
        scores = votes.scores(rows, cosines, ks=self.ks, temperatures=self.temperatures)
        return scores.reshape(len(self.ks) * len(self.temperatures), len(rows), -1)

    def _votes(self, target: int, rows: npt.NDArray[np.int64]) -> Votes:
        """Return what some rows, which have a label, vote; the others weigh nothing."""
        labels = np.zeros(len(self.training.X), np.int64)
        weights = np.zeros(len(labels), np.float32)
        labels[rows] = self.training.y[rows, target]
        weights[rows] = self.training.sample_weight[rows, target]
        return Votes(labels, weights, self.training.n_classes, self.smoothing)
