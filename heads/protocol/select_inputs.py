"""Which grid point is best for each choice of pooling and metadata, by log loss out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.task import Task
from heads.base import HeadFamily, Training
from heads.folds import assign_folds, require_classes
from heads.inputs.binned import Bins
from heads.inputs.class_weights import ClassWeights, class_weight_shift, training_weights
from heads.inputs.input_ways import HeadInputs, Trial, head_rows
from heads.inputs.metadata import MetadataBlocks
from heads.inputs.nested import NestedParts, Nests, Part, SolvedGrid
from heads.inputs.pooling import BINNED
from heads.inputs.unit_images import UnitImages
from heads.protocol.select_point import best_points, point_losses, pooled_scores
from heads.scores import Floats
from heads.stages import counted

# Scores of a grid that are held at once: as many as the vectors have numbers, and 64 MB at least.
_LEAST_CELLS = 1 << 24
# Of a family whose targets share no work but the copies of the vectors, this share of them: a few targets at a time
# are solved as quickly.
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

    @classmethod
    def of(
        cls,
        images: UnitImages,
        task: Task,
        *,
        folds: int,
        class_weights: ClassWeights,
        seed: int,
        dealt: npt.NDArray[np.int64] | None = None,
    ) -> Labelled:
        """Deal the folds, if they are not dealt, and weigh the classes; raises as `heads.folds.require_classes`."""
        n_classes = len(task.classes)
        require_classes(images.y, images.groups, folds=folds, task=task)
        if dealt is None:
            dealt = assign_folds(images.y, images.groups, folds=folds, n_classes=n_classes, seed=seed)
        weights = training_weights(images.y, task, class_weights)
        return cls(images=images, weights=weights, folds=dealt, n_classes=n_classes)

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


def solve_nested(
    parts: Sequence[tuple[npt.NDArray[np.bool_], Labelled]],
    inputs: Sequence[HeadInputs],
    grid: HeadFamily,
    *,
    seed: int,
) -> list[HeadFamily]:
    """Solve the grid for parts of the same units at once; where that saves nothing, return the grid for each.

    Parameters
    ----------
    parts
        Which units each part has, and these as labelled units with folds of their own; the first has all units.
    inputs, grid, seed
        As `select_inputs`.
    """
    everyone = parts[0][1]
    apart: list[HeadFamily] = [grid] * len(parts)
    if not isinstance(grid, Nests) or len(inputs) > 1 or everyone.images.image_of_target is not None:
        return apart
    choice = everyone.choice(inputs[0])
    # What is learned of metadata or places is learned of each part's own units.
    if choice.blocks or choice.bins:
        return apart
    training = everyone.training(choice)
    if not grid.nests(training, len(parts)):
        return apart
    own = [part.training(choice) for _, part in parts]
    nested = NestedParts.of(
        training,
        [
            Part(units=units, folds=part.folds, sample_weight=learned.sample_weight)
            for (units, part), learned in zip(parts, own, strict=True)
        ],
    )
    scores = grid.out_of_fold(nested.training, nested.folds, seed=seed).scores
    params: list[Mapping[str, Any]] = []
    for index, ((_, part), learned) in enumerate(zip(parts, own, strict=True)):
        shifted = _without_shift(nested.of_part(index, scores), part.weights)
        params += [
            grid.points[point]
            for point in best_points(point_losses(shifted, part.images.y, learned.unit_of_row))
        ]
    heads = grid.refit(nested.training, params, seed=seed)
    return [
        SolvedGrid(
            grid=grid,
            scores=nested.of_part(index, scores),
            params=params[nested.targets(index)],
            heads=heads[nested.targets(index)],
        )
        for index in range(len(parts))
    ]


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
        _require_shape(found.scores, grid, (len(unit_of_score), some.stop - some.start, training.columns))
        scores = _without_shift(found.scores, labelled.weights[some])
        losses[:, some] = point_losses(scores, y[:, some], unit_of_score)
        best = best_points(losses[:, some])
        at_best = np.stack([scores[point, :, target] for target, point in enumerate(best)], axis=1)
        chosen[:, some] = pooled_scores(at_best, unit_of_score, n_units=len(y))
        points += best
        params += [found.params(grid.points[point], point, target) for target, point in enumerate(best)]
    return Selected(choice=choice, points=points, params=params, losses=losses, scores=chosen)


def _without_shift(
    scores: npt.NDArray[np.float32], weights: Sequence[Sequence[float]]
) -> npt.NDArray[np.float32]:
    """Take away what class weights added, in place: the scores of a whole grid are not held twice."""
    for target, of_target in enumerate(weights):
        if set(of_target) != {1.0}:
            scores[:, :, target] -= class_weight_shift(of_target).astype(np.float32)
    return scores


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
