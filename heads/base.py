"""What a head is, and what a family of heads owes the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from heads.scores import Floats


@dataclass(frozen=True)
class Training:
    """Rows to learn from: images, or units where vectors are pooled.

    Parameters
    ----------
    X
        (n, dim) float32, finite, un-normalised.
    y
        (n, targets) int64 from 0 to ``n_classes - 1``, -1 where there is no label.
    sample_weight
        (n, targets) float32, non-negative.
    groups
        (n,) int64: the patient. A head that holds rows out by itself holds out whole groups.
    n_classes
        Number of classes of every target.
    targets
        Positions of these targets in the task, for a family that knows the task's; None for all of them, in order.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    sample_weight: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    n_classes: int
    targets: tuple[int, ...] | None = None

    @property
    def columns(self) -> int:
        """Decision scores per case: one with two classes (of the second), else one per class."""
        return 1 if self.n_classes == 2 else self.n_classes


class Head(Protocol):
    """A fitted or unfitted scikit-learn classifier that can be kept as plain arrays."""

    classes_: npt.NDArray[Any]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters, all plain JSON values."""

    def set_params(self, **params: Any) -> Self:
        """Set constructor parameters."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from (n, dim) vectors and (n,) labels."""

    def decision_function(self, X: Any) -> Floats:
        """Return (n,) logits of the second of two classes, or (n, n_classes) logits.

        A row's score has the same bits whatever other rows are in the batch.
        """

    def predict_proba(self, X: Any) -> Floats:
        """Return (n, n_classes) probabilities."""

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return (n,) most probable labels."""

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was learned, as arrays that safetensors can hold."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again from `to_arrays` and `get_params`."""

    @staticmethod
    def family() -> HeadFamily:
        """Return the grid that selection searches by default."""


@dataclass(frozen=True)
class OutOfFold:
    """What a grid says of rows that its models never saw.

    Parameters
    ----------
    scores
        (points, n, targets, columns) float32 decision scores; NaN where a point could not be fitted to a
        target, which is then not chosen for it.
    settled
        Of each point and each target, what its models came to by themselves (when to stop): constructor
        parameters, plain JSON values, that stand in for the point's when it is fitted to all rows. ``()`` where
        the points say all.
    """

    scores: npt.NDArray[np.float32]
    settled: Sequence[Sequence[Mapping[str, Any]]] = ()

    def params(self, point: Mapping[str, Any], index: int, target: int) -> dict[str, Any]:
        """Return what the head of all rows is made with, if a target chose the grid's point `index`."""
        return {**point, **(self.settled[index][target] if self.settled else {})}


class HeadFamily(Protocol):
    """A grid of heads that is solved at once.

    A family whose targets have next to no work in common may say ``targets_share_work = False``: it is then given a
    few at a time, and so holds fewer scores.
    """

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        """Constructor parameters of each grid point, plain JSON values, in a fixed order."""

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row by models that never saw its fold.

        Parameters
        ----------
        training
            The rows.
        folds
            (n,) int64 from 0; whatever is fitted (scaling too) is fitted on the other folds only.
        seed
            For heads that draw numbers.
        """

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Fit one head per target on all rows.

        Calibrators, thresholds and conformal bars come from the out-of-fold scores, so that this head must be as
        sharp as the models that gave them: it holds nothing out, and stops where they did.

        Parameters
        ----------
        training
            The rows; each has a part in the head, but for the targets where it has no label or no weight.
        params_of_target
            Constructor parameters of each target's head: `OutOfFold.params` of the point chosen for it.
        seed
            As given to `out_of_fold`.
        """


def learnable(training: Training, target: int) -> npt.NDArray[np.bool_]:
    """Return the (n,) rows that a target can be learned from: with a label, and a weight above 0."""
    return np.asarray((training.y[:, target] >= 0) & (training.sample_weight[:, target] > 0))
