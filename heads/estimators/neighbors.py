"""k nearest neighbours by cosine: every k and temperature of a grid from one exact search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from heads.base import FamilyDefaults, Head, HeadFamily, HeadNeeds, OutOfFold, Training, learnable
from heads.estimators.classifier import EmbeddingClassifier, require_arrays
from heads.scores import Floats, columns_of
from heads.solvers.neighbor_search import Gallery, unit_vectors
from heads.solvers.neighbor_votes import FoldNeighbors, Votes
from heads.stages import counted

# k and the temperature of DINOv2's protocol (arXiv 2304.07193, dinov2/eval/knn.py), with neighbours of both.
GRID_KS = (5, 10, 20, 50, 100, 200)
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

    needs: ClassVar[HeadNeeds] = HeadNeeds(holds_vectors=True)

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
class NeighborsFamily(FamilyDefaults):
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

    ks: tuple[int, ...] = GRID_KS
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

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row by neighbours outside its fold and outside its group; `seed` has no part in it.

        The folds fix how many neighbours of all rows vote as steadily as those of the rows outside a fold.
        """
        self._check()
        gallery = Gallery(unit_vectors(training.X), training.groups)
        scores = np.empty((len(self.points), *training.y.shape, training.columns), np.float32)
        for fold in counted("fold", np.unique(folds).tolist()):
            outside, scored = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            neighbors = FoldNeighbors(
                training=training,
                gallery=gallery,
                outside=outside,
                ks=self.ks,
                temperatures=self.temperatures,
                smoothing=self.smoothing,
            )
            neighbors.vote(scored, scores)
        return OutOfFold(scores=scores, refit_params=self._refit_params(training, folds))

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Keep all rows for each target, with the k and temperature that it chose."""
        units = unit_vectors(training.X)
        heads: list[Head] = []
        for target, params in enumerate(params_of_target):
            head = NeighborsHead(**params)
            head._check()
            heads.append(head._set_training(training, target, units, np.arange(training.n_classes)))
        return heads

    def _refit_params(
        self, training: Training, folds: npt.NDArray[np.int64]
    ) -> list[list[Mapping[str, Any]]]:
        galleries = []
        for target in range(training.y.shape[1]):
            known = learnable(training, target)
            outside = [np.count_nonzero(known & (folds != fold)) for fold in np.unique(folds)]
            galleries.append((int(np.median(outside)), int(np.count_nonzero(known))))
        return [
            [{"k": neighbors_as_steady(point["k"], few, many)} for few, many in galleries]
            for point in self.points
        ]

    def _check(self) -> None:
        for point in self.points:
            NeighborsHead(**point)._check()


def neighbors_as_steady(k: int, few: int, many: int) -> int:
    """Return how many neighbours of `many` rows vote as steadily as `k` of `few`.

    A vote's share varies as ``1 / k - 1 / n`` if k of n rows vote (Cochran 1977, Sampling Techniques, section 2.6):
    not at all if all do. So it is `k` where that is a small part of the rows, all of `many` where it is all of
    `few`, and in between what makes both variances equal.

    Examples
    --------
    >>> [neighbors_as_steady(k, 44, 55) for k in (5, 20, 40, 44, 200)]
    [5, 22, 49, 55, 55]
    """
    if few < 1 or k >= few:
        return max(many, 1)
    return min(many, round(1 / (1 / k - 1 / few + 1 / many)))
