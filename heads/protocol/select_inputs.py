"""Which grid point is best for each choice of pooling and metadata, by log loss out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.base import HeadFamily, Training
from heads.inputs.binned import Bins
from heads.inputs.class_weights import class_weight_shift
from heads.inputs.input_ways import HeadInputs, Trial, head_rows
from heads.inputs.metadata import MetadataBlocks
from heads.inputs.pooling import BINNED
from heads.inputs.unit_images import UnitImages
from heads.protocol.select_point import best_points, point_losses, pooled_scores
from heads.scores import Floats
from heads.stages import counted

# Scores of a grid that are held at once: as many as the vectors have numbers, and 64 MB at least.
_LEAST_CELLS = 1 << 24
# Of a family whose targets share no work, this share of them: a few targets at a time are solved as quickly.
_FEW = 0.2


@dataclass(frozen=True)
class InputChoice:
    """Pooling and metadata columns, ready for use.

    Parameters
    ----------
    inputs
        Pooling and metadata columns.
    blocks
        How the metadata becomes numbers; None without.
    bins
        The places of binned pooling; None for other poolings.
    """

    inputs: HeadInputs
    blocks: MetadataBlocks | None
    bins: Bins | None = None


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The labelled units of training.

    Parameters
    ----------
    images
        Images and their units.
    weights
        (n_classes,) class weights of training, by target.
    folds
        (n_units,) int64.
    n_classes
        Number of classes.
    targets
        Positions of the targets in the task; None for all of them, in order.
    """

    images: UnitImages
    weights: tuple[tuple[float, ...], ...]
    folds: npt.NDArray[np.int64]
    n_classes: int
    targets: tuple[int, ...] | None = None

    def choice(self, inputs: HeadInputs) -> InputChoice:
        """Learn levels and scale of the metadata, and places; raises UsageError where there are too many of these."""
        images = self.images
        cells = {column: images.metadata[column] for column in inputs.metadata}
        return InputChoice(
            inputs,
            MetadataBlocks.learn(images.X, cells) if cells else None,
            Bins.learn(images.X, images.metadata) if inputs.pooling == BINNED else None,
        )

    def by_images(self) -> list[tuple[list[int], npt.NDArray[np.bool_], Labelled]]:
        """Return the targets that have the same images, their units, and these as labelled units of training."""
        return [
            (
                part.targets,
                part.units,
                replace(
                    self,
                    images=part.images,
                    weights=tuple(self.weights[target] for target in part.targets),
                    folds=self.folds[part.units],
                    targets=tuple(part.targets),
                ),
            )
            for part in self.images.by_images()
        ]

    def training(self, choice: InputChoice) -> Training:
        """Return the rows that the head learns from, with their units; of targets that have the same images."""
        images = self.images
        X, unit_of_row = head_rows(
            images.X,
            images.metadata,
            images.unit_of_row,
            n_units=images.n_units,
            pooling=choice.inputs.pooling,
            blocks=choice.blocks,
            bins=choice.bins,
        )
        y = images.y[unit_of_row]
        by_target = [
            np.asarray(weight, np.float32)[y[:, target]] for target, weight in enumerate(self.weights)
        ]
        return Training(
            X=X,
            y=y,
            sample_weight=np.stack(by_target, axis=1),
            groups=images.groups[unit_of_row],
            n_classes=self.n_classes,
            unit_of_row=unit_of_row,
            n_units=images.n_units,
            targets=self.targets,
            metadata_columns=0 if choice.bins else X.shape[1] - images.X.shape[1],
        )


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A choice of inputs, with the grid points selected for it.

    Parameters
    ----------
    choice
        Pooling and metadata.
    points
        Chosen grid point of each target.
    params
        Constructor parameters of each target's head of all rows (`heads.base.OutOfFold.params`).
    losses
        (points, targets) out-of-fold log loss at the unit.
    scores
        (n_units, targets, columns) out-of-fold scores at the chosen points; NaN where a unit has no image for a
        target.
    """

    choice: InputChoice
    points: Sequence[int]
    params: Sequence[Mapping[str, Any]]
    losses: npt.NDArray[np.float64]
    scores: Floats

    @property
    def trial(self) -> Trial:
        """The choice with the mean of its targets' losses."""
        return Trial(self.choice.inputs, float(self.losses.min(axis=0).mean()))


def select_inputs(
    labelled: Labelled, inputs: Sequence[HeadInputs], grid: HeadFamily, *, seed: int
) -> list[Selected]:
    """Select grid points for every choice, in order.

    Raises
    ------
    UsageError
        If a metadata column has too many levels, before anything is fitted, or the grid returns scores of another
        shape than it declares.
    """
    choices = [labelled.choice(each) for each in inputs]
    if len(choices) == 1:
        return [_select(labelled, choices[0], grid, seed)]
    return [_select(labelled, choice, grid, seed) for choice in counted("inputs", choices)]


def _select(labelled: Labelled, choice: InputChoice, grid: HeadFamily, seed: int) -> Selected:
    """Choose a point for each target, together for the targets that have the same images."""
    found = [
        (targets, units, _select_together(part, choice, grid, seed))
        for targets, units, part in labelled.by_images()
    ]
    if len(found) == 1:
        return found[0][2]
    n_units, n_targets = labelled.images.y.shape
    points = [0] * n_targets
    params: list[Mapping[str, Any]] = [{}] * n_targets
    losses = np.empty((len(grid.points), n_targets))
    scores = np.full((n_units, n_targets, found[0][2].scores.shape[2]), np.nan)
    for targets, units, selected in found:
        for column, target in enumerate(targets):
            points[target], params[target] = selected.points[column], selected.params[column]
            losses[:, target] = selected.losses[:, column]
            scores[units, target] = selected.scores[:, column]
    return Selected(choice=choice, points=points, params=params, losses=losses, scores=scores)


def _select_together(labelled: Labelled, choice: InputChoice, grid: HeadFamily, seed: int) -> Selected:
    """Score the grid out of fold and choose a point for each target, as many targets at once as memory allows."""
    training = labelled.training(choice)
    folds = labelled.folds[training.unit_of_row]
    y = labelled.images.y
    n_targets = y.shape[1]
    # Units that the grid has scored itself are pooled as bags of one.
    unit_of_score = np.arange(training.n_units) if grid.scores_units else training.unit_of_row
    points: list[int] = []
    params: list[Mapping[str, Any]] = []
    losses = np.empty((len(grid.points), n_targets))
    chosen = np.empty((*y.shape, training.columns))
    step = max(1, _scores_held(grid, training) // (len(grid.points) * len(unit_of_score) * training.columns))
    for start in range(0, n_targets, step):
        some = slice(start, min(start + step, n_targets))
        found = grid.out_of_fold(_of_targets(training, some), folds, seed=seed)
        scores = found.scores
        _require_shape(scores, grid, (len(unit_of_score), some.stop - some.start, training.columns))
        for target, of_target in enumerate(labelled.weights[some]):
            if set(of_target) != {1.0}:
                # In place: the scores of a whole grid are not held twice.
                scores[:, :, target] -= class_weight_shift(of_target).astype(np.float32)
        losses[:, some] = point_losses(scores, y[:, some], unit_of_score)
        best = best_points(losses[:, some])
        at_best = np.stack([scores[point, :, target] for target, point in enumerate(best)], axis=1)
        chosen[:, some] = pooled_scores(at_best, unit_of_score, n_units=len(y))
        points += best
        params += [found.params(grid.points[point], point, target) for target, point in enumerate(best)]
    return Selected(choice=choice, points=points, params=params, losses=losses, scores=chosen)


def _require_shape(scores: npt.NDArray[np.float32], grid: HeadFamily, shape: tuple[int, int, int]) -> None:
    wanted = (len(grid.points), *shape)
    if scores.shape != wanted:
        cases = "units" if grid.scores_units else "rows"
        raise UsageError(
            f"{type(grid).__name__}.out_of_fold must return (points, {cases}, targets, columns) scores of shape "
            f"{wanted}, since its scores_units is {grid.scores_units}; found {scores.shape}"
        )


def _scores_held(grid: HeadFamily, training: Training) -> int:
    share = 1.0 if grid.targets_share_work else _FEW
    return max(_LEAST_CELLS, int(share * training.X.size))


def _of_targets(training: Training, some: slice) -> Training:
    targets = training.targets or tuple(range(training.y.shape[1]))
    return replace(
        training, y=training.y[:, some], sample_weight=training.sample_weight[:, some], targets=targets[some]
    )
