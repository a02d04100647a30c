"""A head over bags that can be worked out by hand: a study is abnormal if any of its images is (noisy-or)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from heads.base import FamilyDefaults, Head, HeadNeeds, OutOfFold, Training, learnable
from heads.estimators.classifier import EmbeddingClassifier, require_arrays
from heads.scores import Floats

STRENGTHS = (0.25, 1.0)
BINARY = np.arange(2)


class NoisyOrHead(EmbeddingClassifier):
    """Scores images along the line between the class means of bag means, and a bag by 1 - prod(1 - p)."""

    needs: ClassVar[HeadNeeds] = HeadNeeds(libraries=("click",))

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> NoisyOrHead:
        training = self._training(X, y, sample_weight)
        return self.fit_bags(training, 0, self.classes_)

    def fit_bags(self, training: Training, target: int, classes: npt.NDArray[Any] = BINARY) -> NoisyOrHead:
        """Learn from the units of a training that have a label."""
        first = training.row_of_unit
        known = learnable(training, target)[first]
        y = training.y[first, target][known]
        weight = training.sample_weight[first, target][known].astype(np.float64)
        rows = [training.X[training.unit_of_row == unit] for unit in np.flatnonzero(known)]
        means = np.stack([of_unit.mean(axis=0, dtype=np.float64) for of_unit in rows])
        low, high = (np.average(means[y == k], axis=0, weights=weight[y == k]) for k in (0, 1))
        odds = weight[y == 1].sum() / weight[y == 0].sum()
        middle = (high @ high - low @ low) / 2
        return self._with(self.strength * (high - low), np.log(odds) - self.strength * middle, classes)

    def unit_scores(
        self,
        X: npt.NDArray[np.float32],
        unit_of_row: npt.NDArray[np.int64],
        n_units: int,
        *,
        shift: npt.NDArray[np.float64] | float = 0.0,
    ) -> Floats:
        # Of each image, log(1 - p): products of many would round to 0.
        normal = -np.logaddexp(0, self.decision_function(X))
        all_normal = np.array([normal[unit_of_row == unit].sum() for unit in range(n_units)])
        return (np.log(-np.expm1(all_normal)) - all_normal)[:, None] - shift

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "classes": self._whole_classes(),
            "coef": self.coef_,
            "intercept": np.array([self.intercept_]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> NoisyOrHead:
        require_arrays(arrays, ["classes", "coef", "intercept"], head="a noisy-or head")
        return cls(**params)._with(arrays["coef"], float(arrays["intercept"][0]), arrays["classes"])

    @staticmethod
    def family() -> NoisyOrFamily:
        return NoisyOrFamily()

    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        # Row by row: the order of a matrix product's sums may depend on the batch.
        return np.array([[(row * self.coef_).sum() + self.intercept_] for row in X])

    def _with(self, coef: Floats, intercept: float, classes: npt.NDArray[Any]) -> NoisyOrHead:
        self.coef_, self.intercept_ = coef, intercept
        self.classes_, self.n_features_in_ = classes, len(coef)
        return self


@dataclass(frozen=True)
class NoisyOrFamily(FamilyDefaults):
    """Two strengths, scored at the unit."""

    scores_units: ClassVar[bool] = True

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        return tuple({"strength": strength} for strength in STRENGTHS)

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        fold_of_unit = folds[training.row_of_unit]
        shape = (len(self.points), training.n_units, training.y.shape[1], training.columns)
        scores = np.empty(shape, np.float32)
        for fold in np.unique(folds):
            inside = _units(training, fold_of_unit != fold)
            units = np.flatnonzero(fold_of_unit == fold)
            scored = _units(training, fold_of_unit == fold)
            for point, params in enumerate(self.points):
                for target in range(training.y.shape[1]):
                    head = NoisyOrHead(**params).fit_bags(inside, target)
                    scores[point, units, target] = head.unit_scores(
                        scored.X, scored.unit_of_row, scored.n_units
                    )
        return OutOfFold(scores=scores)

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        return [
            NoisyOrHead(**params).fit_bags(training, target) for target, params in enumerate(params_of_target)
        ]


def _units(training: Training, wanted: npt.NDArray[np.bool_]) -> Training:
    rows = wanted[training.unit_of_row]
    renumbered = np.cumsum(wanted) - 1
    return Training(
        X=training.X[rows],
        y=training.y[rows],
        sample_weight=training.sample_weight[rows],
        groups=training.groups[rows],
        n_classes=training.n_classes,
        unit_of_row=renumbered[training.unit_of_row[rows]],
        n_units=int(wanted.sum()),
    )
