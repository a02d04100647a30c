"""Select, calibrate and fit on the training units; nothing here sees another unit.

A family whose `final` is ``ensemble`` answers with the mean of the heads of several partitions into folds. Its out-
of-fold scores are of the same kind, the mean of those heads that never saw the unit's patient, drawn together by what
the smaller number of heads adds in noise (`heads.reliability`); calibrator, thresholds and whatever else is learned
from out-of-fold scores therefore hold for the head that answers. Thresholds and conformal bars are cut where scores are
drawn together half of that way, by which they are as wide as the final ones: bars of narrower scores hold too few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedstore.task import Task
from embedstore.view import MISSING
from heads.base import FittedHead, HeadFamily
from heads.ensemble import EnsembleHead
from heads.folds import assign_folds, partitions, repeat_seed
from heads.inputs.class_weights import ClassWeights, class_weight_shift
from heads.inputs.input_ways import HeadInputs, Trial
from heads.inputs.shared_heads import (
    Groups,
    StackedTargets,
    stack_targets,
    target_groups,
    task_of_groups,
)
from heads.inputs.unit_images import UnitImages
from heads.protocol.calibrated_units import calibrate_units
from heads.protocol.predictor import BlendedPredictor, Predictor
from heads.protocol.select_inputs import Labelled, Selected, select_inputs
from heads.protocol.select_point import pooled_scores
from heads.reliability import drawn_together, reliability_ratio
from heads.scores import Floats
from heads.stages import stage
from heads.statistics.calibration import Calibration

AskedFinal = Literal["auto", "refit", "ensemble"]
FINALS: tuple[AskedFinal, ...] = ("auto", "refit", "ensemble")
# Of fewer rows than this, heads are cheap, and more of them make a steadier mean.
_FEW_ROWS = 5_000
_REPEATS_OF_FEW = 4
_REPEATS_OF_MANY = 2
# Calibrators that an ensemble does not choose from, with two and with more classes. A mean of scores is duller than
# each of them, and with few units cross-fitting now and then says otherwise; nor does one factor know the prevalence.
_NOT_OF_AN_ENSEMBLE = {"two": ("identity", "temperature", "dirichlet"), "several": ("identity",)}
# Points of an ensemble's grid are compared on this many rows at most: the heads of its partitions cost more.
_SELECTION_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """What an ensemble was made of.

    Parameters
    ----------
    repeats
        Partitions into folds.
    reliability
        By target: the ratio by which out-of-fold scores were drawn together (`heads.reliability.reliability_ratio`).
    """

    repeats: int
    reliability: tuple[float, ...]


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
        (points, targets) out-of-fold log loss at the unit, by single heads; of an ensemble with many rows on some of
        the patients.
    calibrations
        Chosen calibrator of each target with its evidence.
    thresholds
        Rule -> threshold, by target; empty with more than two classes.
    folds
        (n_units,) int64.
    out_of_fold_scores, out_of_fold_probabilities
        (n_units, targets, columns or n_classes); probabilities are cross-fitted, NaN without a label;
        scores are NaN where a unit has no image for the target.
    cut_probabilities
        (n_units, targets, n_classes), from which thresholds and conformal bars are cut: by the same calibrators, of
        scores as wide as the final ones. Of refitted heads they are the out-of-fold probabilities.
    ensemble
        What the heads were made of; None where they were refitted.
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
    cut_probabilities: Floats
    ensemble: Ensemble | None = None


def usual_repeats(rows: int) -> int:
    """Return how many partitions an ensemble has by default: fewer where each of its heads is slow."""
    return _REPEATS_OF_FEW if rows < _FEW_ROWS else _REPEATS_OF_MANY


def fit(
    rows: UnitImages,
    grid: HeadFamily,
    task: Task,
    *,
    inputs: Sequence[HeadInputs],
    folds: int,
    class_weights: ClassWeights,
    seed: int,
    final: AskedFinal = "auto",
    repeats: int | None = None,
    shared: Groups = (),
    dealt: npt.NDArray[np.int64] | None = None,
) -> Fitted:
    """Select, calibrate and fit one head per target.

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
    final
        What answers; ``auto`` is the grid's own (`final` of `heads.base.HeadFamily`).
    repeats
        Partitions of an ensemble, 2 or more; by default `usual_repeats`.
    shared
        Groups of targets that one head answers; by default each target has its own.
    dealt
        (n_units,) int64 folds of the units, from 0 to ``folds - 1``, patients whole; by default they are dealt here.

    Raises
    ------
    DataError
        If the labels cannot be learned in that many folds (`heads.folds.require_classes`).
    UsageError
        If a metadata column has too many levels (`heads.inputs.metadata.MetadataBlocks.learn`).
    """
    how = _How(
        grid=grid,
        inputs=inputs,
        folds=folds,
        class_weights=class_weights,
        seed=seed,
        final=final,
        repeats=repeats,
    )
    if not shared:
        return _fit(rows, task, how, dealt)
    groups = target_groups(shared, task.targets)
    stacked = stack_targets(rows, groups)
    of_pairs = None if dealt is None else dealt[stacked.unit]
    return _of_targets(_fit(stacked.images, task_of_groups(task, groups), how, of_pairs), stacked)


@dataclass(frozen=True, kw_only=True)
class _How:
    """How heads are fitted, as `fit`."""

    grid: HeadFamily
    inputs: Sequence[HeadInputs]
    folds: int
    class_weights: ClassWeights
    seed: int
    final: AskedFinal
    repeats: int | None

    @property
    def is_ensemble(self) -> bool:
        return (self.grid.final if self.final == "auto" else self.final) == "ensemble"


def _fit(rows: UnitImages, task: Task, how: _How, dealt: npt.NDArray[np.int64] | None) -> Fitted:
    """Fit a head for each target (`fit`)."""
    n_classes = len(task.classes)
    grid, folds, seed = how.grid, how.folds, how.seed
    labelled = Labelled.of(rows, task, folds=folds, class_weights=how.class_weights, seed=seed, dealt=dealt)
    weights, fold_of_unit = labelled.weights, labelled.folds
    with stage("selection"):
        tried = select_inputs(
            _for_selection(labelled, folds, seed) if how.is_ensemble else labelled,
            how.inputs,
            grid,
            seed=seed,
        )
    best = min(tried, key=lambda selected: selected.trial.log_loss)
    answering = (
        _ensembles(labelled, best, grid, folds, seed, how.repeats or usual_repeats(len(rows.X)))
        if how.is_ensemble
        else _refitted(labelled, best, grid, seed)
    )
    with stage("calibration"):
        wide = None if answering.ensemble is None else answering.wide
        without = () if wide is None else _NOT_OF_AN_ENSEMBLE["two" if n_classes == 2 else "several"]
        calibrated = calibrate_units(
            answering.scores, rows.y, fold_of_unit, n_classes, wide=wide, without=without
        )
    predictor = Predictor(
        heads=answering.heads,
        calibrators=[calibration.calibrator for calibration in calibrated.calibrations],
        pooling=best.choice.inputs.pooling,
        training_weights=weights,
        blocks=best.choice.blocks,
        bins=best.choice.bins,
    )
    return Fitted(
        predictor=predictor,
        inputs=best.choice.inputs,
        trials=tuple(selected.trial for selected in tried),
        points=tuple(grid.points[point] for point in best.points),
        losses=best.losses,
        calibrations=calibrated.calibrations,
        thresholds=calibrated.thresholds,
        folds=fold_of_unit,
        out_of_fold_scores=answering.scores,
        out_of_fold_probabilities=calibrated.probabilities,
        cut_probabilities=calibrated.cut,
        ensemble=answering.ensemble,
    )


def _of_targets(found: Fitted, stacked: StackedTargets) -> Fitted:
    """Return what was fitted for groups of targets as that of each target."""
    groups = stacked.group_of_target.tolist()
    assert isinstance(found.predictor, Predictor)
    predictor = replace(
        found.predictor,
        heads=[found.predictor.heads[group] for group in groups],
        calibrators=[found.predictor.calibrators[group] for group in groups],
        training_weights=tuple(found.predictor.training_weights[group] for group in groups),
    )
    ensemble = found.ensemble and replace(
        found.ensemble, reliability=tuple(found.ensemble.reliability[group] for group in groups)
    )
    return replace(
        found,
        predictor=predictor,
        points=tuple(found.points[group] for group in groups),
        losses=found.losses[:, groups],
        calibrations=tuple(found.calibrations[group] for group in groups),
        thresholds=tuple(found.thresholds[group] for group in groups) if found.thresholds else (),
        folds=stacked.folds_of_units(found.folds),
        out_of_fold_scores=stacked.unstacked(found.out_of_fold_scores),
        out_of_fold_probabilities=stacked.unstacked(found.out_of_fold_probabilities),
        cut_probabilities=stacked.unstacked(found.cut_probabilities),
        ensemble=ensemble,
    )


@dataclass(frozen=True)
class _Answering:
    """The heads that answer, by target, with (n_units, targets, columns) out-of-fold scores of the same kind."""

    heads: Sequence[FittedHead]
    scores: Floats  # as steep as those of the heads
    wide: Floats  # as wide as those of the heads
    ensemble: Ensemble | None = None


def _refitted(labelled: Labelled, best: Selected, grid: HeadFamily, seed: int) -> _Answering:
    """Fit one head per target on all rows, together for the targets that have the same images."""
    heads: dict[int, FittedHead] = {}
    with stage("fit on all"):
        for targets, _, part in labelled.by_images():
            params = [best.params[target] for target in targets]
            heads |= zip(targets, grid.refit(part.training(best.choice), params, seed=seed), strict=True)
    return _Answering([heads[target] for target in sorted(heads)], best.scores, best.scores)


def _ensembles(
    labelled: Labelled, best: Selected, grid: HeadFamily, folds: int, seed: int, repeats: int
) -> _Answering:
    """Fit the heads of all partitions, together for the targets that have the same images."""
    images = labelled.images
    of_unit = partitions(
        images.y, images.groups, folds=folds, n_classes=labelled.n_classes, seed=seed, repeats=repeats
    )
    columns = 1 if labelled.n_classes == 2 else labelled.n_classes
    scores, wide = np.full((2, *images.y.shape, columns), np.nan)
    heads: dict[int, FittedHead] = {}
    ratios: dict[int, float] = {}
    with stage(f"heads of {repeats} x {folds} folds"):
        for targets, units, part in labelled.by_images():
            training = part.training(best.choice)
            params = [grid.points[best.points[target]] for target in targets]
            found = grid.cross_fit(training, of_unit[:, units][:, training.unit_of_row], params, seed=seed)
            unit_of_score = np.arange(training.n_units) if grid.scores_units else training.unit_of_row
            for column, target in enumerate(targets):
                heads[target] = EnsembleHead(found.heads[column])
                of_target = found.scores[:, :, [column]] - class_weight_shift(labelled.weights[target])
                pooled = np.stack(
                    [pooled_scores(each, unit_of_score, n_units=training.n_units)[:, 0] for each in of_target]
                )
                known = part.images.y[:, column] != MISSING
                ratios[target] = reliability_ratio(pooled[:, known], heads=repeats * folds)
                scores[units, target] = drawn_together(pooled, ratios[target])
                wide[units, target] = drawn_together(pooled, math.sqrt(ratios[target]))
    order = sorted(heads)
    ensemble = Ensemble(repeats=repeats, reliability=tuple(ratios[target] for target in order))
    return _Answering([heads[target] for target in order], scores, wide, ensemble)


def _for_selection(labelled: Labelled, folds: int, seed: int) -> Labelled:
    """Return some of the patients where rows are many: as many of each class as there are folds, at least."""
    images = labelled.images
    for parts in range(math.ceil(len(images.X) / _SELECTION_ROWS), 1, -1):
        part = assign_folds(
            images.y, images.groups, folds=parts, n_classes=labelled.n_classes, seed=repeat_seed(seed, 0, 1)
        )
        some = images.take(part == 0)
        if _patients_of_rarest_class(some, labelled.n_classes) >= folds:
            own = assign_folds(some.y, some.groups, folds=folds, n_classes=labelled.n_classes, seed=seed)
            return replace(labelled, images=some, folds=own)
    return labelled


def _patients_of_rarest_class(images: UnitImages, n_classes: int) -> int:
    return min(
        len(np.unique(images.groups[of_target == k])) for of_target in images.y.T for k in range(n_classes)
    )
