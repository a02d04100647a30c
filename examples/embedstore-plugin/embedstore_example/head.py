"""A head: classes as Gaussians with one variance for each feature, which is linear in the vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.base import FamilyDefaults, Head, HeadFamily, OutOfFold, Training, learnable
from heads.estimators.classifier import EmbeddingClassifier, require_arrays

Floats = npt.NDArray[np.float64]

GRID_SHRINKAGES = (0.0, 0.5, 1.0)
_BLOCK_ROWS = 256


class DiagonalHead(EmbeddingClassifier):
    """Linear discriminant with a diagonal covariance.

    Parameters
    ----------
    shrinkage
        From 0 (a variance for each feature) to 1 (one variance for all).
    """

    def __init__(self, shrinkage: float = 0.5) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from (n, dim) vectors, (n,) labels and optionally (n,) weights.

        Raises
        ------
        ValueError
            If the input is not finite, lengths differ or there is one class only.
        UsageError
            If `shrinkage` is outside 0 to 1.
        """
        training = self._training(X, y, sample_weight)
        return self._set_training(training, 0, np.ones(len(training.X), np.bool_), self.classes_)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was learned; a run keeps it as safetensors."""
        return {"classes": self._whole_classes(), "coef": self.coef_, "intercept": self.intercept_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again; raises DataError if an array is missing."""
        require_arrays(arrays, ["classes", "coef", "intercept"], head="a diagonal head")
        return cls(**params)._set_learned(arrays["coef"], arrays["intercept"], arrays["classes"])

    @staticmethod
    def family() -> HeadFamily:
        """Return the grid that ``embed probe --head diagonal`` searches."""
        return DiagonalFamily()

    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        """Return (n, columns) scores: one with two classes, else one per class.

        A matrix product would round differently for another number of rows; sums along a row do not.
        """
        scores = np.empty((len(X), len(self.coef_)))
        for start in range(0, len(X), _BLOCK_ROWS):
            rows = X[start : start + _BLOCK_ROWS, None, :].astype(np.float64)
            scores[start : start + _BLOCK_ROWS] = (rows * self.coef_).sum(axis=-1)
        return scores + self.intercept_

    def _set_training(
        self, training: Training, target: int, chosen: npt.NDArray[np.bool_], classes: npt.NDArray[Any]
    ) -> Self:
        """Learn one target from the chosen rows."""
        if not 0 <= self.shrinkage <= 1:
            raise UsageError(f"diagonal: shrinkage must be from 0 to 1; found {self.shrinkage!r}")
        rows = np.flatnonzero(chosen & learnable(training, target))
        X = training.X[rows].astype(np.float64)
        y, weight = training.y[rows, target], training.sample_weight[rows, target].astype(np.float64)
        member = (y[:, None] == np.arange(training.n_classes)) * weight[:, None]
        # A class that these rows do not show gets the mean of all and next to no prior.
        total = member.sum(axis=0) + 1e-6
        means = (member.T @ X + 1e-6 * np.average(X, axis=0, weights=weight)) / total[:, None]
        variance = np.average((X - means[y]) ** 2, axis=0, weights=weight)
        variance = (1 - self.shrinkage) * variance + self.shrinkage * variance.mean()
        variance = np.maximum(variance, max(1e-6 * variance.mean(), 1e-12))
        coef = means / variance
        intercept = np.log(total / total.sum()) - 0.5 * (means * coef).sum(axis=1)
        if training.columns == 1:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        return self._set_learned(coef, intercept, classes)

    def _set_learned(
        self, coef: npt.NDArray[Any], intercept: npt.NDArray[Any], classes: npt.NDArray[Any]
    ) -> Self:
        self.coef_, self.intercept_ = np.asarray(coef, np.float64), np.asarray(intercept, np.float64)
        self.classes_ = np.asarray(classes)
        self.n_features_in_ = self.coef_.shape[1]
        return self


@dataclass(frozen=True)
class DiagonalFamily(FamilyDefaults):
    """A few shrinkages.

    Parameters
    ----------
    shrinkages
        The grid.
    """

    shrinkages: tuple[float, ...] = GRID_SHRINKAGES

    @property
    def points(self) -> tuple[dict[str, Any], ...]:
        """Constructor parameters of each point, plain JSON values."""
        return tuple({"shrinkage": shrinkage} for shrinkage in self.shrinkages)

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row by a head that was fitted on the other folds."""
        del seed  # nothing is drawn
        targets = training.y.shape[1]
        scores = np.full((len(self.points), len(training.X), targets, training.columns), np.nan, np.float32)
        classes = np.arange(training.n_classes)
        for point, params in enumerate(self.points):
            for target in range(targets):
                for fold in np.unique(folds):
                    inside = folds == fold
                    head = DiagonalHead(**params)._set_training(training, target, ~inside, classes)
                    scores[point, inside, target] = head._scores(training.X[inside])
        return OutOfFold(scores=scores)

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Fit one head per target on all rows."""
        del seed
        everything, classes = np.ones(len(training.X), np.bool_), np.arange(training.n_classes)
        return [
            DiagonalHead(**params)._set_training(training, target, everything, classes)
            for target, params in enumerate(params_of_target)
        ]
