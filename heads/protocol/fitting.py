"""Select, calibrate and refit on the training units; nothing here sees another unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.task import Task
from embedstore.view import MISSING
from heads.base import Head, HeadFamily
from heads.folds import assign_folds, require_classes
from heads.inputs.class_weights import ClassWeights, training_weights
from heads.inputs.input_ways import HeadInputs, Trial
from heads.inputs.unit_images import UnitImages
from heads.protocol.predictor import BlendedPredictor, Predictor
from heads.protocol.select_inputs import Labelled, Selected, select_inputs
from heads.scores import Floats
from heads.stages import stage
from heads.statistics.calibration import Calibration, calibrate
from heads.statistics.thresholds import choose_thresholds


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Fitted heads and calibrators, with the out-of-fold evidence.

    Parameters
    ----------
    predictor
        Heads and calibrators, fitted on all rows.
    inputs
        Pooling and metadata that the heads get: the only choice, or the one with the smallest loss.
    trials
        Every choice that was tried, in order.
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
        (n_units, targets, columns or n_classes); probabilities are cross-fitted, NaN without a label;
        scores are NaN where a unit has no image for the target.
    """

    predictor: Predictor | BlendedPredictor
    inputs: HeadInputs
    trials: tuple[Trial, ...]
    points: tuple[Mapping[str, Any], ...]
    losses: npt.NDArray[np.float64]
    calibrations: tuple[Calibration, ...]
    thresholds: tuple[Mapping[str, float], ...]
    folds: npt.NDArray[np.int64]
    out_of_fold_scores: Floats
    out_of_fold_probabilities: Floats


def fit(
    rows: UnitImages,
    grid: HeadFamily,
    task: Task,
    *,
    inputs: Sequence[HeadInputs],
    folds: int,
    class_weights: ClassWeights,
    seed: int,
) -> Fitted:
    """Select, calibrate and refit one head per target.

    Parameters
    ----------
    rows
        The training units.
    grid
        The grid that selection searches.
    task
        Targets and classes.
    inputs
        Choices of pooling and metadata, one or more; the smallest mean of the targets' out-of-fold log losses
        wins, the first of equals. Each costs one selection.
    folds
        Patient folds.
    class_weights
        Weights of training.
    seed
        Of folds and heads.

    Raises
    ------
    DataError
        If the labels cannot be learned in that many folds (`heads.folds.require_classes`).
    UsageError
        If a metadata column has too many levels (`heads.inputs.metadata.MetadataBlocks.learn`).
    """
    n_classes = len(task.classes)
    require_classes(rows.y, rows.groups, folds=folds, task=task)
    fold_of_unit = assign_folds(rows.y, rows.groups, folds=folds, n_classes=n_classes, seed=seed)
    weights = training_weights(rows.y, task, class_weights)
    labelled = Labelled(images=rows, weights=weights, folds=fold_of_unit, n_classes=n_classes)
    with stage("selection"):
        tried = select_inputs(labelled, inputs, grid, seed=seed)
    best = min(tried, key=lambda selected: selected.trial.log_loss)
    with stage("calibration"):
        calibrations, thresholds, probabilities = calibrate_units(
            best.scores, rows.y, fold_of_unit, n_classes
        )
    with stage("fit on all"):
        refitted = _refitted(labelled, best, grid, seed)
    predictor = Predictor(
        heads=refitted,
        calibrators=[calibration.calibrator for calibration in calibrations],
        pooling=best.choice.inputs.pooling,
        training_weights=weights,
        blocks=best.choice.blocks,
    )
    return Fitted(
        predictor=predictor,
        inputs=best.choice.inputs,
        trials=tuple(selected.trial for selected in tried),
        points=tuple(grid.points[point] for point in best.points),
        losses=best.losses,
        calibrations=calibrations,
        thresholds=thresholds,
        folds=fold_of_unit,
        out_of_fold_scores=best.scores,
        out_of_fold_probabilities=probabilities,
    )


def _refitted(labelled: Labelled, best: Selected, grid: HeadFamily, seed: int) -> list[Head]:
    """Fit one head per target on all rows, together for the targets that have the same images."""
    heads: dict[int, Head] = {}
    for targets, _, part in labelled.by_images():
        params = [best.params[target] for target in targets]
        heads |= zip(targets, grid.refit(part.training(best.choice), params, seed=seed), strict=True)
    return [heads[target] for target in sorted(heads)]


def calibrate_units(
    scores: Floats, y: npt.NDArray[np.int64], fold_of_unit: npt.NDArray[np.int64], n_classes: int
) -> tuple[tuple[Calibration, ...], tuple[Mapping[str, float], ...], Floats]:
    """Return calibrations and thresholds by target, and cross-fitted (n_units, targets, n_classes) probabilities.

    Parameters
    ----------
    scores
        (n_units, targets, columns) out-of-fold scores.
    y
        (n_units, targets) int64, `MISSING` where there is no label; such a unit's probabilities are NaN.
    fold_of_unit
        (n_units,) int64.
    n_classes
        Number of classes.
    """
    calibrations, thresholds = [], []
    probabilities = np.full((*y.shape, n_classes), np.nan)
    for target in range(y.shape[1]):
        labelled = y[:, target] != MISSING
        known = y[labelled, target]
        calibration = calibrate(scores[labelled, target], known, fold_of_unit[labelled])
        probabilities[labelled, target] = calibration.probabilities
        calibrations.append(calibration)
        if n_classes == 2:
            thresholds.append(choose_thresholds(known, calibration.probabilities[:, 1]))
    return tuple(calibrations), tuple(thresholds), probabilities
