"""What a head is, and what a family of heads owes the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError, did_you_mean

ENTRY_POINTS = "embedstore.heads"
Floats = npt.NDArray[np.float64]


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
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    sample_weight: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int64]
    n_classes: int

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


def head_names() -> list[str]:
    """Return the names of the installed heads."""
    return sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)})


def head_package(name: str) -> str | None:
    """Return the name of the installed package that offers a head, None where none does; imports nothing of it."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name and entry.dist is not None:
            return str(entry.dist.name)
    return None


def head_class(name: str) -> type[Head]:
    """Return the head's class; its module, with the libraries it needs, is imported only now.

    Raises
    ------
    UsageError
        If no installed package offers a head of that name.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            found: type[Head] = entry.load()
            return found
    installed = head_names()
    raise UsageError(
        f"--head: no head named {name!r}; installed: {', '.join(installed) or 'none'}{did_you_mean(name, installed)}"
    )


def head_family(name: str) -> HeadFamily:
    """Return the default grid of a head by name; raises as `head_class`."""
    return head_class(name).family()


def on_device(family: HeadFamily, device: str) -> HeadFamily:
    """Return the grid to be fitted on ``auto``, ``cpu`` or ``cuda``; one without a choice stays as it is."""
    # A grid of another package need not be a dataclass.
    if "device" not in getattr(family, "__dataclass_fields__", {}):
        return family
    moved: HeadFamily = replace(cast(Any, family), device=device)
    return moved


def probabilities_from_scores(scores: npt.NDArray[Any]) -> Floats:
    """Turn decision scores into probabilities.

    Parameters
    ----------
    scores
        (..., 1) logits of the second class, or (..., n_classes) logits.

    Returns
    -------
    ndarray
        (..., n_classes) float64; no entry is NaN, rows sum to 1. Each row depends on nothing but itself.
    """
    wide = np.asarray(scores, np.float64)
    if wide.shape[-1] == 1:
        wide = np.concatenate([np.zeros_like(wide), wide], axis=-1)
    exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True))
    # Summed class by class: the order of a library's reduction may depend on the shape.
    total = exponentials[..., :1].copy()
    for k in range(1, wide.shape[-1]):
        total += exponentials[..., k : k + 1]
    return np.asarray(exponentials / total, np.float64)
