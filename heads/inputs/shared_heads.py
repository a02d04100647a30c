"""One head for several targets: what it learns of one level of a spine, or of one side, holds for the others.

Every pair of a unit and a target that it has an image for becomes a unit of its own, of a single target for the whole
group, with the images that speak for the pair. Patients stay together in folds. What is learned there is then that of
every target of the group: the head, its calibrator and its thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import UsageError
from embedstore.task import UNIT_ID, Task
from embedstore.view import MISSING
from heads.inputs.unit_images import UnitImages
from heads.scores import Floats

Groups = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class StackedTargets:
    """Units and targets as units of groups.

    Parameters
    ----------
    images
        The images of the pairs, with a column of labels for each group.
    unit, target
        (n_pairs,) int64: which unit and target each pair is.
    group_of_target
        (n_targets,) int64.
    shape
        Units and targets that were stacked.
    """

    images: UnitImages
    unit: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    group_of_target: npt.NDArray[np.int64]
    shape: tuple[int, int]

    def unstacked(self, of_pairs: Floats) -> Floats:
        """Return (n_units, n_targets, k) of (n_pairs, groups, k) values; NaN where a unit has no image for a target."""
        found = np.full((*self.shape, of_pairs.shape[2]), np.nan)
        pairs = np.arange(len(self.unit))
        found[self.unit, self.target] = of_pairs[pairs, self.group_of_target[self.target]]
        return found

    def folds_of_units(self, folds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (n_units,) folds of (n_pairs,) ones: patients are whole, so a unit's pairs share theirs."""
        found = np.zeros(self.shape[0], np.int64)
        found[self.unit] = folds
        return found


def target_groups(groups: Groups, targets: Sequence[str]) -> list[list[int]]:
    """Return the positions of the targets of each group; those that are not among `targets` are passed over.

    Raises
    ------
    UsageError
        If a target is in no group, or in two.
    """
    found = [[targets.index(name) for name in group if name in targets] for group in groups]
    named = [position for group in found for position in group]
    if sorted(named) != list(range(len(targets))):
        odd = next(name for at, name in enumerate(targets) if named.count(at) != 1)
        raise UsageError(
            f"shared_heads must name every target in one group; found {odd!r} in {named.count(targets.index(odd))}"
        )
    return [group for group in found if group]


def stack_targets(rows: UnitImages, groups: Sequence[Sequence[int]]) -> StackedTargets:
    """Return the pairs of units and targets as units of groups.

    Parameters
    ----------
    rows
        Images and labels of all targets.
    groups
        Positions of the targets of each group; every target in one.
    """
    shape = (rows.n_units, rows.y.shape[1])
    group_of_target = np.empty(shape[1], np.int64)
    for number, group in enumerate(groups):
        group_of_target[list(group)] = number
    mask = rows.image_of_target
    if mask is None:
        mask = np.ones((len(rows.X), shape[1]), np.bool_)
    # By target, then by image: the images of a pair stay in their order.
    target, image = np.nonzero(mask.T)
    pair = target * shape[0] + rows.unit_of_row[image]
    pairs, pair_of_row = np.unique(pair, return_inverse=True)
    of_target, unit = pairs // shape[0], pairs % shape[0]
    y = np.full((len(pairs), len(groups)), MISSING)
    y[np.arange(len(pairs)), group_of_target[of_target]] = rows.y[unit, of_target]
    own_group = group_of_target[target][:, None] == np.arange(len(groups))
    images = UnitImages(
        X=rows.X[image],
        metadata={column: cells[image] for column, cells in rows.metadata.items()},
        unit_of_row=pair_of_row.astype(np.int64),
        y=y,
        groups=np.unique(rows.groups[unit], return_inverse=True)[1].astype(np.int64),
        image_of_target=None if own_group.all() else own_group,
    )
    return StackedTargets(
        images=images, unit=unit, target=of_target, group_of_target=group_of_target, shape=shape
    )


def task_of_groups(task: Task, groups: Sequence[Sequence[int]]) -> Task:
    """Return the task with a target for each group, named after its first target; without labels."""
    names = tuple(task.targets[group[0]] for group in groups)
    labels = pa.table({name: pa.array([], pa.string()) for name in (UNIT_ID, *names)})
    return replace(task, unit="study", targets=names, labels=labels, images_of_target={})


def labels_of_heads(
    y: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], heads: Sequence[Sequence[int]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the labels that each head learns from, one below the other, and the patients that they are of.

    Parameters
    ----------
    y
        (n_units, targets) int64.
    groups
        (n_units,) int64.
    heads
        Positions of the targets of each head.

    Returns
    -------
    y, groups
        (m * n_units, heads) and (m * n_units,) int64, where m is the largest number of targets of a head.
    """
    most = max(map(len, heads))
    stacked = np.full((most, len(y), len(heads)), MISSING)
    for column, targets in enumerate(heads):
        stacked[: len(targets), :, column] = y[:, list(targets)].T
    return stacked.reshape(-1, len(heads)), np.tile(groups, most)
