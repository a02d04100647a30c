"""What a head learns from: rows, their units, labels and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Training:
    """Rows to learn from (images, or pooled vectors), and the units that they belong to.

    Parameters
    ----------
    X
        (n, dim) float32, finite, un-normalised.
    y
        (n, targets) int64 from 0 to ``n_classes - 1``, -1 where there is no label. All rows of a unit have its label.
    sample_weight
        (n, targets) float32, non-negative; the same for all rows of a unit.
    groups
        (n,) int64: the patient. A head that holds rows out by itself holds out whole groups.
    n_classes
        Number of classes of every target.
    unit_of_row
        (n,) int64 from 0 to ``n_units - 1``: the unit of each row; every unit has a row.
    n_units
        Number of units.
    targets
        Positions of these targets in the task, for a family that knows the task's; None for all of them, in order.
    metadata_columns
        How many of the last columns of `X` are metadata (`heads.inputs.metadata`).
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    sample_weight: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    n_classes: int
    unit_of_row: npt.NDArray[np.int64]
    n_units: int
    targets: tuple[int, ...] | None = None
    metadata_columns: int = 0

    @classmethod
    def of_rows(
        cls,
        X: npt.NDArray[np.float32],
        y: npt.NDArray[np.int64],
        *,
        sample_weight: npt.NDArray[np.float32],
        groups: npt.NDArray[np.int64],
        n_classes: int,
    ) -> Training:
        """Return a training in which each row is a unit of its own."""
        return cls(
            X=X,
            y=y,
            sample_weight=sample_weight,
            groups=groups,
            n_classes=n_classes,
            unit_of_row=np.arange(len(X)),
            n_units=len(X),
        )

    @property
    def columns(self) -> int:
        """Decision scores per case: one with two classes (of the second), else one per class."""
        return 1 if self.n_classes == 2 else self.n_classes

    @property
    def row_of_unit(self) -> npt.NDArray[np.int64]:
        """(n_units,) int64: the first row of each unit, which has the unit's labels, weights, group and fold."""
        _, first = np.unique(self.unit_of_row, return_index=True)
        return np.asarray(first, np.int64)

    def take_units(self, units: npt.NDArray[np.bool_]) -> Training:
        """Return the rows of the units of a (n_units,) mask; units are renumbered, groups are not."""
        rows = units[self.unit_of_row]
        return replace(
            self,
            X=self.X[rows],
            y=self.y[rows],
            sample_weight=self.sample_weight[rows],
            groups=self.groups[rows],
            unit_of_row=(np.cumsum(units) - 1)[self.unit_of_row[rows]],
            n_units=int(units.sum()),
        )


def learnable(training: Training, target: int) -> npt.NDArray[np.bool_]:
    """Return the (n,) rows that a target can be learned from: with a label, and a weight above 0."""
    return np.asarray((training.y[:, target] >= 0) & (training.sample_weight[:, target] > 0))
