"""k nearest neighbours by cosine: every k and temperature of a grid from one exact search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from heads.base import Floats, Head, HeadFamily, Training
from heads.classifier import EmbeddingClassifier, columns_of, learnable, require_arrays
from heads.gallery import Gallery, unit_vectors

# k and the temperature of DINOv2's protocol (arXiv 2304.07193, dinov2/eval/knn.py), with neighbours of both.
NEIGHBORS = (5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.02, 0.07, 0.2, 1.0)
_BLOCK_ROWS = 1024


class NeighborsHead(EmbeddingClassifier):
    """Votes of the nearest training vectors, weighted by a softmax of their cosines.

    A class's probability is its share of the votes, drawn towards the class frequencies of training as if
    `smoothing` more neighbours had voted by them. So it is never 0, and the log loss is finite; how many
    neighbours have voted is their effective number, ``(sum w)**2 / sum w**2``.

    Parameters
    ----------
    k
        Neighbours that vote; all rows where there are fewer.
    temperature
        A vote weighs ``exp(cosine / temperature)``; 1 is nearly an even vote.
    smoothing
        Neighbours' worth of class frequencies, above 0.

    Attributes
    ----------
    vectors_
        (n, dim) float16 unit vectors of the rows with a weight above 0.
    labels_
        (n,) int64 index into `classes_`.
    weights_
        (n,) float32 sample weights.
    classes_
        (n_classes,) labels in order.

    Examples
    --------
    >>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
    >>> NeighborsHead(k=2).fit(X, [0, 0, 1, 1]).predict([[3.0, 1.0], [0.0, 1.0]])
    array([0, 1])
    """

    def __init__(self, k: int = 20, *, temperature: float = 0.07, smoothing: float = 1.0) -> None:
        self.k = k
        self.temperature = temperature
        self.smoothing = smoothing

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Keep (n, dim) vectors with (n,) labels and optionally (n,) weights.

        Raises
        ------
        ValueError
            If the input is not finite, lengths differ or there is one class only.
        UsageError
            If a parameter is wrong.
        """
        training = self._training(X, y, sample_weight, None)
        self._check()
        return self._set_training(training, 0, unit_vectors(training.X), self.classes_)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return vectors, labels, weights and classes, which must be numbers."""
        return {
            "classes": self._whole_classes(),
            "labels": self.labels_,
            "vectors": self.vectors_,
            "weights": self.weights_,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again from `to_arrays` and `get_params`.

        Raises
        ------
        DataError
            If an array is missing or their shapes do not belong together.
        """
        require_arrays(arrays, ["classes", "labels", "vectors", "weights"], head="a knn head")
        vectors, labels, weights = (arrays[name] for name in ("vectors", "labels", "weights"))
        n_classes = len(arrays["classes"])
        if vectors.ndim != 2 or labels.shape != (len(vectors),) or weights.shape != labels.shape:
            raise DataError(
                f"a knn head needs a label and a weight for each vector; found vectors {vectors.shape}, "
                f"labels {labels.shape}, weights {weights.shape}"
            )
        if vectors.dtype != np.float16 or not np.isin(labels, range(n_classes)).all():
            raise DataError(
                f"a knn head needs float16 vectors and labels below {n_classes}; "
                f"found {vectors.dtype} and labels up to {labels.max(initial=0)}"
            )
        return cls(**params)._set_learned(vectors, labels, weights, arrays["classes"])

    @staticmethod
    def family() -> HeadFamily:
        """Return six k with four temperatures."""
        return NeighborsFamily()

    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        gallery = Gallery(self.vectors_)
        votes = Votes(self.labels_, self.weights_, len(self.classes_), self.smoothing)
        parts = [np.zeros((0, columns_of(self.classes_)))]
        for start in range(0, len(X), _BLOCK_ROWS):
            found = gallery.search(X[start : start + _BLOCK_ROWS], min(self.k, len(self.vectors_)))
            parts.append(votes.scores(*found, ks=[self.k], temperatures=[self.temperature])[0, 0])
        return np.concatenate(parts)

    def _check(self) -> None:
        if self.k < 1:
            raise UsageError(f"knn: k must be 1 or more; found {self.k}")
        if self.temperature <= 0 or self.smoothing <= 0:
            raise UsageError(
                f"knn: temperature and smoothing must be above 0; found {self.temperature}, {self.smoothing}"
            )

    def _set_training(
        self, training: Training, target: int, units: npt.NDArray[np.float16], classes: npt.NDArray[Any]
    ) -> Self:
        known = learnable(training, target)
        return self._set_learned(
            # Heads of targets without missing labels share one array.
            units if known.all() else units[known],
            training.y[known, target],
            training.sample_weight[known, target],
            classes,
        )

    def _set_learned(
        self,
        vectors: npt.NDArray[np.float16],
        labels: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32],
        classes: npt.NDArray[Any],
    ) -> Self:
        self.vectors_, self.labels_, self.weights_, self.classes_ = vectors, labels, weights, classes
        self.n_features_in_ = vectors.shape[1]
        return self


@dataclass(frozen=True)
class NeighborsFamily:
    """The grid of neighbours: every k with every temperature, from one search of the largest k.

    Parameters
    ----------
    ks
        Numbers of neighbours.
    temperatures
        Of the votes' softmax.
    smoothing
        As `NeighborsHead`.
    """

    ks: tuple[int, ...] = NEIGHBORS
    temperatures: tuple[float, ...] = TEMPERATURES
    smoothing: float = 1.0

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        """Parameters of `NeighborsHead` at each grid point."""
        return tuple(
            {"k": k, "temperature": temperature, "smoothing": self.smoothing}
            for k in self.ks
            for temperature in self.temperatures
        )

    def out_of_fold(
        self, training: Training, folds: npt.NDArray[np.int64], *, seed: int
    ) -> npt.NDArray[np.float32]:
        """Score every row by neighbours outside its fold and outside its group; `seed` has no part in it."""
        self._check()
        units = unit_vectors(training.X)
        scores = np.empty((len(self.points), *training.y.shape, training.columns), np.float32)
        for fold in np.unique(folds):
            outside, scored = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            for targets, rows in _targets_by_rows(training, outside):
                gallery = Gallery(units[rows], training.groups[rows])
                k = min(max(self.ks), len(rows))
                votes = [
                    Votes(
                        training.y[rows, target],
                        training.sample_weight[rows, target],
                        training.n_classes,
                        self.smoothing,
                    )
                    for target in targets
                ]
                for start in range(0, len(scored), _BLOCK_ROWS):
                    some = scored[start : start + _BLOCK_ROWS]
                    found = gallery.search_outside(training.X[some], k, training.groups[some])
                    for target, of_target in zip(targets, votes, strict=True):
                        grid = of_target.scores(*found, ks=self.ks, temperatures=self.temperatures)
                        scores[:, some, target] = grid.reshape(len(scores), len(some), -1)
        return scores

    def refit(self, training: Training, point_of_target: Sequence[int], *, seed: int) -> list[Head]:
        """Keep all rows for each target, with the k and temperature that it chose."""
        self._check()
        units = unit_vectors(training.X)
        return [
            NeighborsHead(**self.points[point])._set_training(
                training, target, units, np.arange(training.n_classes)
            )
            for target, point in enumerate(point_of_target)
        ]

    def _check(self) -> None:
        for point in self.points:
            NeighborsHead(**point)._check()


@dataclass(frozen=True)
class Votes:
    """Labels and weights of the rows that may be found, and how their votes become scores.

    Parameters
    ----------
    labels
        (n,) int64.
    weights
        (n,) float32, above 0.
    n_classes
        Number of classes.
    smoothing
        As `NeighborsHead`.
    """

    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    n_classes: int
    smoothing: float

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
        shares = np.bincount(self.labels, self.weights, self.n_classes) / self.weights.sum(dtype=np.float64)
        # A class that no row has (of a target in a fold) is not at minus infinity.
        shares = np.maximum(shares, 1e-6)
        weight = np.where(rows >= 0, self.weights[rows], 0.0)
        # Where each k ends, with as many neighbours as there are.
        ends = np.minimum(np.asarray(ks), rows.shape[1]) - 1
        for at, temperature in enumerate(temperatures):
            votes = weight * np.exp((cosines - cosines[:, :1]) / temperature)
            # Cumulated one by one in order of rank: the same bits whatever the batch, and every k at once.
            total = np.cumsum(votes, axis=1)[:, ends]
            square = np.cumsum(votes**2, axis=1)[:, ends]
            effective = np.divide(total**2, square, out=np.zeros_like(total), where=square > 0)
            logarithms = []
            for label in range(self.n_classes):
                own = np.cumsum(votes * (self.labels[rows] == label), axis=1)[:, ends]
                share = np.divide(own, total, out=np.zeros_like(own), where=total > 0)
                logarithms.append(np.log(effective * share + self.smoothing * shares[label]))
            stacked = np.stack(logarithms, axis=-1).transpose(1, 0, 2)
            scores[:, at] = stacked[..., 1:] - stacked[..., :1] if columns == 1 else stacked
        return scores


def _targets_by_rows(
    training: Training, outside: npt.NDArray[np.int64]
) -> list[tuple[list[int], npt.NDArray[np.int64]]]:
    """Return targets with the rows that they can be learned from; those with the same rows share a search."""
    shared: dict[bytes, tuple[list[int], npt.NDArray[np.int64]]] = {}
    for target in range(training.y.shape[1]):
        known = learnable(training, target)[outside]
        shared.setdefault(known.tobytes(), ([], outside[known]))[0].append(target)
    return list(shared.values())
