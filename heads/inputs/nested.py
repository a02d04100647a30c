"""Parts of the same units, solved at once: the outer folds of a cross-validation, and all units beside them.

Of few rows the grids of five outer folds take longer than five times the work: the steps are so short that the calls
around them cost more. A family that knows targets of one problem from another (`Nests`) gets the parts as targets
whose other rows have no label, each with folds of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.base import FamilyDefaults, Head, HeadFamily, OutOfFold, Training


@runtime_checkable
class Nests(Protocol):
    """What a `HeadFamily` has that can take folds of shape (n, targets), of each target its own."""

    def nests(self, training: Training, parts: int) -> bool:
        """Return whether so many parts of these rows, as targets with folds of their own, take less time together."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the units.

    Parameters
    ----------
    units
        (n_units,) bool.
    folds
        (k,) int64 folds of these units.
    sample_weight
        (rows of these units, targets) float32.
    """

    units: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]
    sample_weight: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class NestedParts:
    """Parts of a training as one training with as many targets for each part.

    Parameters
    ----------
    training
        All rows, with the targets of the first part, then those of the next.
    folds
        (n, targets of `training`) int64.
    rows
        By part, which rows it has: (n,) bool.
    """

    training: Training
    folds: npt.NDArray[np.int64]
    rows: Sequence[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, everyone: Training, parts: Sequence[Part]) -> NestedParts:
        """Join parts of a training."""
        n, targets = everyone.y.shape
        y = np.full((n, len(parts) * targets), MISSING, np.int64)
        weight = np.zeros(y.shape, np.float32)
        folds = np.zeros(y.shape, np.int64)
        rows = []
        for index, part in enumerate(parts):
            own = part.units[everyone.unit_of_row]
            columns = slice(index * targets, (index + 1) * targets)
            y[own, columns], weight[own, columns] = everyone.y[own], part.sample_weight
            of_unit = np.zeros(everyone.n_units, np.int64)
            of_unit[part.units] = part.folds
            folds[:, columns] = of_unit[everyone.unit_of_row, None]
            rows.append(own)
        training = replace(everyone, y=y, sample_weight=weight, targets=None)
        return cls(training=training, folds=folds, rows=rows)

    def of_part(self, part: int, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return a part's (points, rows, targets, columns) scores of those of all (points, n, targets, columns)."""
        own = scores[:, self.rows[part]]
        return own[:, :, self.targets(part)]

    def targets(self, part: int) -> slice:
        """Return which targets of `training` are those of a part."""
        count = self.training.y.shape[1] // len(self.rows)
        return slice(part * count, (part + 1) * count)


@dataclass(frozen=True, kw_only=True)
class SolvedGrid(FamilyDefaults):
    """A grid whose answers for one training are known.

    Parameters
    ----------
    grid
        The grid.
    scores
        What its `out_of_fold` would return for all targets of the training.
    params, heads
        What its `refit` would return for these parameters.
    """

    grid: HeadFamily
    scores: npt.NDArray[np.float32]
    params: Sequence[Mapping[str, Any]]
    heads: Sequence[Head]

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        """Those of the grid."""
        return self.grid.points

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Return the scores that are known."""
        del folds, seed
        targets = range(training.y.shape[1]) if training.targets is None else training.targets
        return OutOfFold(scores=self.scores[:, :, list(targets)])

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Return the heads that are known, or fit others."""
        if list(params_of_target) == list(self.params):
            return list(self.heads)
        return self.grid.refit(training, params_of_target, seed=seed)
