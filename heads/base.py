"""The contract of heads and of their grids, and the defaults that they inherit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from embedstore.task import Task
from embedstore.text_tower import TextTower
from heads.folds import repeat_seed
from heads.scores import Floats, pool_scores
from heads.training import Training, learnable

__all__ = [
    "CrossFit",
    "FamilyDefaults",
    "Final",
    "FittedHead",
    "Head",
    "HeadDefaults",
    "HeadFamily",
    "HeadNeeds",
    "OutOfFold",
    "Training",
    "learnable",
]

# What answers: one head fitted again on all rows, or the mean of the heads of several partitions into folds.
Final = Literal["refit", "ensemble"]


@dataclass(frozen=True, kw_only=True)
class HeadNeeds:
    """What a head needs beyond vectors and labels.

    Parameters
    ----------
    libraries
        Distributions (as ``pip`` names them) beside the project's own dependencies whose version a run records.
    text_tower
        Whether its grid is made with the text tower of the store's encoder (`Head.family_of_text`).
    holds_vectors
        Whether what is kept of it is the vectors that it learned from.
    images
        Whether it is to have a unit's images, and not one pooled vector, whatever the task's pooling.
    """

    libraries: tuple[str, ...] = ()
    text_tower: bool = False
    holds_vectors: bool = False
    images: bool = False


class FittedHead(Protocol):
    """What answers for a target: a fitted `Head`, or an ensemble of them (`heads.ensemble.EnsembleHead`)."""

    classes_: npt.NDArray[Any]
    # Whether the solver reached its tolerance; None where the head does not say.
    converged_: bool | None

    @property
    def needs(self) -> HeadNeeds:
        """What it needs beyond vectors and labels."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters, all plain JSON values."""

    def decision_function(self, X: Any) -> Floats:
        """Return (n,) logits of the second of two classes, or (n, n_classes) logits.

        A row's score has the same bits whatever other rows are in the batch.
        """

    def unit_scores(
        self,
        X: npt.NDArray[np.float32],
        unit_of_row: npt.NDArray[np.int64],
        n_units: int,
        *,
        shift: npt.NDArray[np.float64] | float = 0.0,
    ) -> Floats:
        """Score units, each of which is a bag of rows.

        Parameters
        ----------
        X
            (n, dim) float32 vectors.
        unit_of_row
            (n,) int64 from 0 to ``n_units - 1``; every unit has a row.
        n_units
            Number of units.
        shift
            (columns,) float64, or one number: what the class weights of training added to the scores, to be
            subtracted: from the scores of rows, or from those of units in a head that learns from bags.

        Returns
        -------
        ndarray
            (n_units, columns) float64 logits. A unit's bits depend on its own rows only.
        """

    def image_weights(
        self, X: npt.NDArray[np.float32], unit_of_row: npt.NDArray[np.int64], n_units: int
    ) -> Floats | None:
        """Return how much each row has to say in its unit; None from a head that hears all alike.

        Parameters
        ----------
        X, unit_of_row, n_units
            As `unit_scores`.

        Returns
        -------
        ndarray or None
            (n,) float64, 0 or more, summing to 1 in each unit. A unit's bits depend on its own rows only.
        """

    def hidden_vectors(self, X: npt.NDArray[np.float32]) -> Floats | None:
        """Return (n, width) what the head makes of (n, dim) rows before it decides; None without such a layer.

        A row's bits do not depend on the other rows.
        """

    def predict_proba(self, X: Any) -> Floats:
        """Return (n, n_classes) probabilities."""

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return (n,) most probable labels."""

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what was learned, as arrays that safetensors can hold."""


class Head(FittedHead, Protocol):
    """A fitted or unfitted scikit-learn classifier that can be kept as plain arrays.

    `HeadDefaults` has `needs`, `converged_`, `unit_scores`, `image_weights`, `hidden_vectors` and `family_of_text` for
    heads that inherit it.
    """

    needs: ClassVar[HeadNeeds]

    def set_params(self, **params: Any) -> Self:
        """Set constructor parameters."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from (n, dim) vectors and (n,) labels."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again from `to_arrays` and `get_params`."""

    @staticmethod
    def family() -> HeadFamily:
        """Return the grid that selection searches by default."""

    @classmethod
    def family_of_text(cls, task: Task, text: TextTower, *, prompts: Path | None) -> HeadFamily:
        """Return the grid of a head that needs a text tower.

        Parameters
        ----------
        task
            Its targets and classes are to be put into words.
        text
            The text tower of the encoder that made the vectors.
        prompts
            The user's file of prompts; None for the head's own.
        """


class _ScoresRows(Protocol):
    def decision_function(self, X: Any) -> Floats: ...


class HeadDefaults:
    """What a head inherits: no needs, and units with the mean of their rows' probabilities, which all weigh alike."""

    needs: ClassVar[HeadNeeds] = HeadNeeds()
    converged_: bool | None = None

    def unit_scores(
        self: _ScoresRows,
        X: npt.NDArray[np.float32],
        unit_of_row: npt.NDArray[np.int64],
        n_units: int,
        *,
        shift: npt.NDArray[np.float64] | float = 0.0,
    ) -> Floats:
        """Return (n_units, columns) scores of the mean of each unit's row probabilities (`Head.unit_scores`)."""
        scores = np.asarray(self.decision_function(X), np.float64).reshape(len(X), -1)
        return pool_scores(scores - shift, unit_of_row, n_units=n_units)

    def image_weights(
        self, X: npt.NDArray[np.float32], unit_of_row: npt.NDArray[np.int64], n_units: int
    ) -> Floats | None:
        """Return None: no row has more to say than another (`FittedHead.image_weights`)."""
        del X, unit_of_row, n_units
        return None

    def hidden_vectors(self, X: npt.NDArray[np.float32]) -> Floats | None:
        """Return None: nothing lies between a row and its scores (`FittedHead.hidden_vectors`)."""
        del X
        return None

    @classmethod
    def family_of_text(cls, task: Task, text: TextTower, *, prompts: Path | None) -> HeadFamily:
        """Refuse: only a head that needs a text tower makes a grid with one."""
        raise UsageError(f"{cls.__name__} needs no text tower; its grid is {cls.__name__}.family()")


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Decision scores of a grid on rows that its models never saw.

    Parameters
    ----------
    scores
        (points, n, targets, columns) float32 decision scores of rows, or (points, n_units, targets, columns) of
        units where the family says ``scores_units``; NaN where a point could not be fitted to a target, which is
        then not chosen for it.
    refit_params
        Of each point and target, the constructor parameters that the folds fixed (the number of rounds, for
        instance), plain JSON values: they replace the point's when it is fitted to all rows. ``()`` where the
        points are complete.
    """

    scores: npt.NDArray[np.float32]
    refit_params: Sequence[Sequence[Mapping[str, Any]]] = ()

    def params(self, point: Mapping[str, Any], index: int, target: int) -> dict[str, Any]:
        """Return the parameters of the head of all rows, for a target that chose the grid's point `index`."""
        return {**point, **(self.refit_params[index][target] if self.refit_params else {})}


@dataclass(frozen=True, kw_only=True)
class CrossFit:
    """Heads of every fold of several partitions, and their scores of what they never saw.

    Parameters
    ----------
    heads
        Of each target, ``repeats * folds`` fitted heads: those of the first partition by fold, then of the next.
    scores
        (repeats, n, targets, columns) float32 decision scores of rows, or (repeats, n_units, targets, columns) of
        units where the family says ``scores_units``: in each repeat by the head whose fold the row is in.
    """

    heads: Sequence[Sequence[Head]]
    scores: npt.NDArray[np.float32]


class HeadFamily(Protocol):
    """A grid of heads that is solved at once.

    `FamilyDefaults` has `targets_share_work`, `scores_units`, `final`, `cross_fit`, `with_imbalance` and `on_device`
    for families that inherit it.
    """

    # Whether targets have work in common; where not, they are fitted a few at a time, which holds fewer scores.
    targets_share_work: ClassVar[bool]
    # Whether `out_of_fold` scores units, as its heads' own `unit_scores` do, or rows, which are then pooled.
    scores_units: ClassVar[bool]
    # `refit` where the head of all rows is the same function as those of the folds, only steadier; `ensemble` where it
    # is sharper or duller than they were: then the mean of the heads of several partitions answers.
    final: ClassVar[Final]

    @property
    def points(self) -> tuple[Mapping[str, Any], ...]:
        """Constructor parameters of each grid point, plain JSON values, in a fixed order."""

    def with_imbalance(self) -> Self:
        """Return the grid with points that treat rare classes in other ways as well; itself where there are none."""

    def on_device(self, device: str) -> Self:
        """Return the grid to be fitted on ``auto``, ``cpu`` or ``cuda``; itself where there is no choice."""

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row, or every unit, by models that never saw its fold.

        Parameters
        ----------
        training
            The rows and their units.
        folds
            (n,) int64 from 0, one for all rows of a unit; whatever is fitted (scaling too) is fitted on the other
            folds only.
        seed
            For heads that draw numbers.
        """

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Fit one head per target on all rows.

        Calibrators, thresholds and conformal bars come from the out-of-fold scores, so this head must be as
        sharp as the models that gave them: it holds nothing out, and stops where they did.

        Parameters
        ----------
        training
            The rows and their units; each takes part, except for targets where it has no label or no weight.
        params_of_target
            Constructor parameters of each target's head: `OutOfFold.params` of the point chosen for it.
        seed
            As given to `out_of_fold`.
        """

    def cross_fit(
        self,
        training: Training,
        folds: npt.NDArray[np.int64],
        params_of_target: Sequence[Mapping[str, Any]],
        *,
        seed: int,
    ) -> CrossFit:
        """Fit one head for every fold of every partition, and score the rows of that fold with it.

        Parameters
        ----------
        training
            The rows and their units.
        folds
            (repeats, n) int64 from 0, one for all rows of a unit: several partitions into folds.
        params_of_target
            Constructor parameters of each target's heads: the grid point chosen for it. A head may hold some of its
            own rows out, to know when to stop.
        seed
            From which each head's own is derived (`heads.folds.repeat_seed`): heads that draw numbers must not draw
            the same, or their mean is as noisy as each of them.
        """


class _Refits(Protocol):
    scores_units: ClassVar[bool]

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]: ...


class FamilyDefaults:
    """What a family inherits: shared work, scores of rows, a head of all rows, and no choice of a device."""

    targets_share_work: ClassVar[bool] = True
    scores_units: ClassVar[bool] = False
    final: ClassVar[Final] = "refit"

    def with_imbalance(self) -> Self:
        """Return the grid itself: it has no other way with rare classes."""
        return self

    def on_device(self, device: str) -> Self:
        """Return the grid itself: it is fitted in one place only."""
        del device
        return self

    def cross_fit(
        self: _Refits,
        training: Training,
        folds: npt.NDArray[np.int64],
        params_of_target: Sequence[Mapping[str, Any]],
        *,
        seed: int,
    ) -> CrossFit:
        """Fit each head by `refit` on the rows outside its fold (`HeadFamily.cross_fit`)."""
        cases = training.n_units if self.scores_units else len(training.X)
        scores = np.empty((len(folds), cases, training.y.shape[1], training.columns), np.float32)
        heads: list[list[Head]] = [[] for _ in params_of_target]
        for repeat, fold_of_row in enumerate(folds):
            fold_of_unit = fold_of_row[training.row_of_unit]
            for fold in np.unique(fold_of_row):
                outside = training.take_units(fold_of_unit != fold)
                inside = training.take_units(fold_of_unit == fold)
                scored = np.flatnonzero((fold_of_unit if self.scores_units else fold_of_row) == fold)
                own_seed = repeat_seed(seed, repeat, int(fold))
                for target, head in enumerate(self.refit(outside, params_of_target, seed=own_seed)):
                    heads[target].append(head)
                    scores[repeat, scored, target] = (
                        head.unit_scores(inside.X, inside.unit_of_row, inside.n_units)
                        if self.scores_units
                        else head.decision_function(inside.X).reshape(len(scored), -1)
                    )
        return CrossFit(heads=heads, scores=scores)
