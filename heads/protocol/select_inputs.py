"""Which grid point is best for each way of giving units to a head, by log loss out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.base import HeadFamily, Training
from heads.inputs.class_weights import class_weight_shift
from heads.inputs.input_ways import HeadInputs, Trial, head_rows
from heads.inputs.metadata import MetadataBlocks
from heads.inputs.unit_images import Rows
from heads.protocol.select_point import best_points, point_losses, unit_scores
from heads.scores import Floats

# Scores of a grid that are held at once: as many as the vectors have numbers, and 64 MB at least.
_LEAST_CELLS = 1 << 24
# Where a family says so, that share of them: its targets are solved as quickly a few at a time.
_FEW = 0.2


@dataclass(frozen=True)
class Way:
    """One way of giving units to a head, ready for use.

    Parameters
    ----------
    inputs
        Pooling and metadata columns.
    blocks
        How the metadata becomes numbers; None without.
    """

    inputs: HeadInputs
    blocks: MetadataBlocks | None


@dataclass(frozen=True)
class Labelled:
    """What may be learned from.

    Parameters
    ----------
    rows
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

    rows: Rows
    weights: tuple[tuple[float, ...], ...]
    folds: npt.NDArray[np.int64]
    n_classes: int
    targets: tuple[int, ...] | None = None

    def way(self, inputs: HeadInputs) -> Way:
        """Learn levels and scale of the metadata; raises UsageError where a column has too many levels."""
        cells = {column: self.rows.metadata[column] for column in inputs.metadata}
        return Way(inputs, MetadataBlocks.learn(self.rows.X, cells) if cells else None)

    def by_images(self) -> list[tuple[list[int], npt.NDArray[np.bool_], Labelled]]:
        """Return the targets that have the same images, their units, and what may be learned of them."""
        return [
            (
                part.targets,
                part.units,
                replace(
                    self,
                    rows=part.rows,
                    weights=tuple(self.weights[target] for target in part.targets),
                    folds=self.folds[part.units],
                    targets=tuple(part.targets),
                ),
            )
            for part in self.rows.by_images()
        ]

    def training(self, way: Way) -> tuple[Training, npt.NDArray[np.int64]]:
        """Return what the head learns from, and the unit of each of its rows; of targets that have the same images."""
        rows = self.rows
        X, unit_of_row = head_rows(
            rows.X,
            rows.metadata,
            rows.unit_of_row,
            n_units=rows.n_units,
            pooling=way.inputs.pooling,
            blocks=way.blocks,
        )
        y = rows.y[unit_of_row]
        by_target = [
            np.asarray(weight, np.float32)[y[:, target]] for target, weight in enumerate(self.weights)
        ]
        sample_weight = np.stack(by_target, axis=1)
        groups = rows.groups[unit_of_row]
        return Training(X, y, sample_weight, groups, self.n_classes, self.targets), unit_of_row


@dataclass(frozen=True)
class Selected:
    """A way, with the grid points selected for it.

    Parameters
    ----------
    way
        Of giving units to the head.
    points
        Chosen grid point of each target.
    params
        What each target's head of all rows is made with (`heads.base.OutOfFold.params`).
    losses
        (points, targets) out-of-fold log loss at the unit.
    scores
        (n_units, targets, columns) out-of-fold scores at the chosen points; NaN where a unit has no image for a
        target.
    """

    way: Way
    points: Sequence[int]
    params: Sequence[Mapping[str, Any]]
    losses: npt.NDArray[np.float64]
    scores: Floats

    @property
    def trial(self) -> Trial:
        """The way with the mean of its targets' losses."""
        return Trial(self.way.inputs, float(self.losses.min(axis=0).mean()))


def select_inputs(
    labelled: Labelled, inputs: Sequence[HeadInputs], grid: HeadFamily, *, seed: int
) -> list[Selected]:
    """Select grid points for every way, in order.

    Raises
    ------
    UsageError
        If a metadata column has too many levels, before anything is fitted.
    """
    ways = [labelled.way(each) for each in inputs]
    return [_select(labelled, way, grid, seed) for way in ways]


def _select(labelled: Labelled, way: Way, grid: HeadFamily, seed: int) -> Selected:
    """Choose a point for each target, together for the targets that have the same images."""
    found = [
        (targets, units, _select_together(part, way, grid, seed))
        for targets, units, part in labelled.by_images()
    ]
    if len(found) == 1:
        return found[0][2]
    n_units, n_targets = labelled.rows.y.shape
    points = [0] * n_targets
    params: list[Mapping[str, Any]] = [{}] * n_targets
    losses = np.empty((len(grid.points), n_targets))
    scores = np.full((n_units, n_targets, found[0][2].scores.shape[2]), np.nan)
    for targets, units, selected in found:
        for column, target in enumerate(targets):
            points[target], params[target] = selected.points[column], selected.params[column]
            losses[:, target] = selected.losses[:, column]
            scores[units, target] = selected.scores[:, column]
    return Selected(way, points, params, losses, scores)


def _select_together(labelled: Labelled, way: Way, grid: HeadFamily, seed: int) -> Selected:
    """Score the grid out of fold and choose a point for each target, as many targets at once as memory allows."""
    training, unit_of_row = labelled.training(way)
    folds = labelled.folds[unit_of_row]
    y = labelled.rows.y
    n_targets = y.shape[1]
    points: list[int] = []
    params: list[Mapping[str, Any]] = []
    losses = np.empty((len(grid.points), n_targets))
    chosen = np.empty((*y.shape, training.columns))
    step = max(1, _scores_held(grid, training) // (len(grid.points) * len(training.X) * training.columns))
    for start in range(0, n_targets, step):
        some = slice(start, min(start + step, n_targets))
        found = grid.out_of_fold(_of_targets(training, some), folds, seed=seed)
        scores = found.scores
        for target, of_target in enumerate(labelled.weights[some]):
            if set(of_target) != {1.0}:
                # In place: the scores of a whole grid are not held twice.
                scores[:, :, target] -= class_weight_shift(of_target).astype(np.float32)
        losses[:, some] = point_losses(scores, y[:, some], unit_of_row)
        best = best_points(losses[:, some])
        at_best = np.stack([scores[point, :, target] for target, point in enumerate(best)], axis=1)
        chosen[:, some] = unit_scores(at_best, unit_of_row, n_units=len(y))
        points += best
        params += [found.params(grid.points[point], point, target) for target, point in enumerate(best)]
    return Selected(way, points, params, losses, chosen)


def _scores_held(grid: HeadFamily, training: Training) -> int:
    share = 1.0 if getattr(grid, "targets_share_work", True) else _FEW
    return max(_LEAST_CELLS, int(share * training.X.size))


def _of_targets(training: Training, some: slice) -> Training:
    targets = training.targets or tuple(range(training.y.shape[1]))
    return replace(
        training, y=training.y[:, some], sample_weight=training.sample_weight[:, some], targets=targets[some]
    )
