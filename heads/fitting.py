"""Select, calibrate and refit on the units that may be learned from; nothing here sees another unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.task import Task
from embedstore.view import MISSING, View
from heads.base import Floats, HeadFamily, Training, probabilities_from_scores
from heads.calibration import Calibration, calibrate
from heads.pooling import pool_vectors
from heads.predictor import Predictor, class_weight_shift
from heads.selection import assign_folds, best_points, point_losses, require_classes, unit_scores
from heads.thresholds import choose_thresholds

ClassWeights = Literal["none", "balanced", "task"]
CLASS_WEIGHTS: tuple[ClassWeights, ...] = ("none", "balanced", "task")


@dataclass(frozen=True)
class Rows:
    """What a head sees, and the units that it is judged by.

    Parameters
    ----------
    X
        (n_rows, dim) float32: images, or units where vectors are pooled.
    unit_of_row
        (n_rows,) int64.
    y
        (n_units, targets) int64.
    groups
        (n_units,) int64: what folds must keep together.
    pooling
        How rows became units, or will.
    """

    X: npt.NDArray[np.float32]
    unit_of_row: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    pooling: str

    @classmethod
    def of_view(cls, view: View, groups: npt.NDArray[np.int64], pooling: str) -> Rows:
        """Pool a view's vectors where the rule says so."""
        X, unit_of_row = pool_vectors(view.X, view.unit_of_image, n_units=len(view.unit_ids), pooling=pooling)
        return cls(X, unit_of_row, view.y, groups, pooling)

    def take(self, units: npt.NDArray[np.bool_]) -> Rows:
        """Return the units of a mask, renumbered."""
        if units.all():
            return self
        rows = units[self.unit_of_row]
        renumbered = np.cumsum(units) - 1
        _, groups = np.unique(self.groups[units], return_inverse=True)
        return Rows(self.X[rows], renumbered[self.unit_of_row[rows]], self.y[units], groups, self.pooling)


@dataclass(frozen=True)
class Fitted:
    """What was learned, with the out-of-fold evidence.

    Parameters
    ----------
    predictor
        Heads and calibrators, fitted on all rows.
    points
        Chosen grid point of each target.
    losses
        (points, targets) out-of-fold log loss at the unit.
    calibrations
        Chosen calibrator of each target with its evidence.
    thresholds
        Rule -> threshold, by target; empty with more than two classes.
    folds
        (n_units,) int64.
    out_of_fold_scores, out_of_fold_probabilities
        (n_units, targets, columns or n_classes); probabilities are cross-fitted, NaN without a label.
    """

    predictor: Predictor
    points: tuple[Mapping[str, Any], ...]
    losses: npt.NDArray[np.float64]
    calibrations: tuple[Calibration, ...]
    thresholds: tuple[Mapping[str, float], ...]
    folds: npt.NDArray[np.int64]
    out_of_fold_scores: Floats
    out_of_fold_probabilities: Floats

    def uncalibrated(self, scores: Floats) -> Floats:
        """Return the probabilities that the heads alone would state."""
        return probabilities_from_scores(scores)


def fit(
    rows: Rows, grid: HeadFamily, task: Task, *, folds: int, class_weights: ClassWeights, seed: int
) -> Fitted:
    """Select, calibrate and refit one head per target.

    Parameters
    ----------
    rows
        Units to learn from, all of them.
    grid
        The grid that selection searches.
    task
        Targets and classes.
    folds
        Patient folds.
    class_weights
        Weights of training.
    seed
        Of folds and heads.

    Raises
    ------
    DataError
        If the labels cannot be learned in that many folds (`heads.selection.require_classes`).
    """
    n_classes, n_units = len(task.classes), len(rows.y)
    require_classes(rows.y, rows.groups, folds=folds, task=task)
    fold_of_unit = assign_folds(rows.y, rows.groups, folds=folds, n_classes=n_classes, seed=seed)
    weights = training_weights(rows.y, task, class_weights)
    training = _training(rows, weights, n_classes)
    scores = grid.out_of_fold(training, fold_of_unit[rows.unit_of_row], seed=seed)
    for target, of_target in enumerate(weights):
        if set(of_target) != {1.0}:
            # In place: at the size of a challenge the scores of a whole grid are not held twice.
            scores[:, :, target] -= class_weight_shift(of_target).astype(np.float32)
    losses = point_losses(scores, rows.y, rows.unit_of_row)
    chosen = best_points(losses)
    best = np.stack([scores[point, :, target] for target, point in enumerate(chosen)], axis=1)
    pooled = unit_scores(best, rows.unit_of_row, n_units=n_units)
    calibrations, thresholds = [], []
    probabilities = np.full((n_units, len(task.targets), n_classes), np.nan)
    for target in range(len(task.targets)):
        labelled = rows.y[:, target] != MISSING
        y = rows.y[labelled, target]
        calibration = calibrate(pooled[labelled, target], y, fold_of_unit[labelled])
        probabilities[labelled, target] = calibration.probabilities
        calibrations.append(calibration)
        if n_classes == 2:
            thresholds.append(choose_thresholds(y, calibration.probabilities[:, 1]))
    predictor = Predictor(
        grid.refit(training, chosen, seed=seed),
        [calibration.calibrator for calibration in calibrations],
        rows.pooling,
        weights,
    )
    points = tuple(grid.points[point] for point in chosen)
    return Fitted(
        predictor, points, losses, tuple(calibrations), tuple(thresholds), fold_of_unit, pooled, probabilities
    )


def training_weights(
    y: npt.NDArray[np.int64], task: Task, class_weights: ClassWeights
) -> tuple[tuple[float, ...], ...]:
    """Return the weight of each class in training, by target.

    ``balanced`` gives every class the same total, ``task`` takes the task's own weights.

    Raises
    ------
    UsageError
        If the rule is unknown or the task has no weights.
    """
    n_classes = len(task.classes)
    if class_weights not in CLASS_WEIGHTS:
        raise UsageError(f"class_weights must be one of {', '.join(CLASS_WEIGHTS)}; found {class_weights!r}")
    if class_weights == "none":
        return ((1.0,) * n_classes,) * len(task.targets)
    if class_weights == "task":
        if task.class_weights is None:
            raise UsageError(
                f"class_weights='task', but task {task.name!r} states none; use 'balanced' or 'none'"
            )
        return (task.class_weights,) * len(task.targets)
    counts = [np.bincount(column[column != MISSING], minlength=n_classes) for column in y.T]
    return tuple(tuple((count.sum() / (n_classes * count)).tolist()) for count in counts)


def _training(rows: Rows, weights: tuple[tuple[float, ...], ...], n_classes: int) -> Training:
    y = rows.y[rows.unit_of_row]
    by_target = [np.asarray(weight, np.float32)[y[:, target]] for target, weight in enumerate(weights)]
    sample_weight = np.stack(by_target, axis=1)
    return Training(rows.X, y, sample_weight, rows.groups[rows.unit_of_row], n_classes)
