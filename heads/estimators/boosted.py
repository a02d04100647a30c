"""Gradient-boosted trees on embeddings (XGBoost): the estimator, and a grid that shares its quantised rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import xgboost
from xgboost.core import XGBoostError

from embedstore.errors import DataError, UsageError
from heads.base import (
    CrossFit,
    FamilyDefaults,
    Final,
    Head,
    HeadFamily,
    HeadNeeds,
    OutOfFold,
    Training,
    learnable,
)
from heads.estimators.classifier import EmbeddingClassifier, require_arrays
from heads.folds import repeat_seed
from heads.principal_axes import Projection
from heads.scores import Floats, columns_of
from heads.solvers.boosted_rows import QuantisedRows, device_of, margins, threads_for
from heads.solvers.early_stopping import usual_stop
from heads.stages import counted


class BoostedHead(EmbeddingClassifier):
    """Boosted trees by histograms, stopped by the log loss of held-out groups.

    Parameters
    ----------
    max_depth
        Of a tree.
    learning_rate
        Shrinkage of each tree.
    rounds
        Trees (of each class, with more than two) at most.
    patience
        Rounds without a smaller held-out loss after which boosting stops; trees after the best are dropped.
    min_child_weight
        Smallest sum of curvatures in a leaf.
    reg_lambda
        L2 penalty of leaf values.
    subsample
        Share of the rows that each tree sees.
    colsample
        Share of the columns that each tree sees.
    max_bin
        Bins of a column.
    components
        Principal axes of the training rows that vectors are projected on; 0 leaves them as they are.
    validation_share
        Share of the groups held out; 0 makes all rounds.
    random_state
        Of subsampling and held-out groups.
    device
        ``auto`` (a GPU that XGBoost finds, else the CPU), ``cpu`` or ``cuda``, for fitting; scores are always
        computed on the CPU.

    Attributes
    ----------
    booster_
        The trees.
    projection_
        The fitted `heads.principal_axes.Projection`.
    n_iter_
        Rounds kept.
    classes_
        (n_classes,) labels in order.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]] * 10)
    >>> BoostedHead(rounds=20).fit(X, [0, 1, 1, 0] * 10).predict([[0.0], [1.5], [3.0]])
    array([0, 1, 0])
    """

    needs: ClassVar[HeadNeeds] = HeadNeeds(libraries=("xgboost",))

    def __init__(
        self,
        max_depth: int = 4,
        *,
        learning_rate: float = 0.1,
        rounds: int = 300,
        patience: int = 20,
        min_child_weight: float = 1.0,
        reg_lambda: float = 1.0,
        subsample: float = 1.0,
        colsample: float = 1.0,
        max_bin: int = 64,
        components: int = 0,
        validation_share: float = 0.1,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.rounds = rounds
        self.patience = patience
        self.min_child_weight = min_child_weight
        self.reg_lambda = reg_lambda
        self.subsample = subsample
        self.colsample = colsample
        self.max_bin = max_bin
        self.components = components
        self.validation_share = validation_share
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Learn from (n, dim) vectors, (n,) labels and optionally (n,) weights.

        `groups` names the patient of each row; by default each row is its own.

        Raises
        ------
        ValueError
            If the input is not finite, lengths differ or there is one class only.
        UsageError
            If a parameter is wrong.
        """
        training = self._training(X, y, sample_weight, groups)
        quantised = QuantisedRows.create(
            training,
            np.flatnonzero(learnable(training, 0)),
            components=self.components,
            max_bin=self.max_bin,
        )
        return self._set_learned(self.boost(quantised, 0), quantised.projection, self.classes_)

    def boost(self, quantised: QuantisedRows, target: int) -> xgboost.Booster:
        """Return the trees of a target, up to the best round."""
        matrix, held_out = quantised.labelled(target, share=self.validation_share, seed=self.random_state)
        try:
            booster = xgboost.train(
                self._parameters(quantised),
                matrix,
                self.rounds,
                evals=[(held_out, "held_out")] if held_out is not None else [],
                early_stopping_rounds=self.patience if held_out is not None else None,
                verbose_eval=False,
            )
        except (XGBoostError, ValueError) as error:
            message = str(error).splitlines()[0]
            raise UsageError(f"xgboost refuses a parameter of {self}: {message}") from error
        # The loss that stops is the held-out one: trees after the best would only add noise.
        return booster[: booster.best_iteration + 1] if held_out is not None else booster

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the trees as UBJSON bytes, the projection, and classes, which must be numbers."""
        return {
            "classes": self._whole_classes(),
            "model": np.frombuffer(self.booster_.save_raw("ubj"), np.uint8).copy(),
            "mean": self.projection_.mean,
            "axes": self.projection_.axes,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], params: Mapping[str, Any]) -> Self:
        """Build the fitted head again from `to_arrays` and `get_params`.

        Raises
        ------
        DataError
            If an array is missing, shapes do not belong together or the bytes are no model of XGBoost.
        """
        require_arrays(arrays, ["axes", "classes", "mean", "model"], head="an xgboost head")
        mean, axes = arrays["mean"], arrays["axes"]
        if mean.ndim != 1 or axes.ndim != 2 or axes.shape[1] != len(mean):
            raise DataError(
                f"an xgboost head needs axes as long as its mean; found {axes.shape}, {mean.shape}"
            )
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(arrays["model"].tobytes()))
        except XGBoostError as error:
            raise DataError(
                f"an xgboost head's model is not readable: {str(error).splitlines()[0]}"
            ) from error
        columns = len(axes) or len(mean)
        if booster.num_features() != columns:
            raise DataError(
                f"an xgboost head's model takes {booster.num_features()} columns; its arrays make {columns}"
            )
        return cls(**params)._set_learned(booster, Projection(mean, axes), arrays["classes"])

    @staticmethod
    def family() -> HeadFamily:
        """Return shallow and deeper trees on principal axes."""
        return BoostedFamily()

    def _scores(self, X: npt.NDArray[np.float32]) -> Floats:
        return margins(self.booster_, self.projection_(X), columns_of(self.classes_))

    def _parameters(self, quantised: QuantisedRows) -> dict[str, Any]:
        n_classes = quantised.training.n_classes
        binary = n_classes == 2
        objective = {"objective": "binary:logistic", "eval_metric": "logloss"}
        if not binary:
            objective = {"objective": "multi:softprob", "eval_metric": "mlogloss"}
        return {
            **objective,
            **({} if binary else {"num_class": n_classes}),
            "tree_method": "hist",
            "device": device_of(self.device),
            "max_depth": self.max_depth,
            "learning_rate": self.learning_rate,
            "min_child_weight": self.min_child_weight,
            "reg_lambda": self.reg_lambda,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample,
            "max_bin": self.max_bin,
            "seed": self.random_state,
            "nthread": threads_for(quantised.projected.size),
            "verbosity": 0,
        }

    def _set_learned(
        self, booster: xgboost.Booster, projection: Projection, classes: npt.NDArray[Any]
    ) -> Self:
        # A GPU adds a row's trees in another order than the CPU, on which a run may be used later.
        booster.set_param({"device": "cpu", "verbosity": 0})
        self.booster_, self.projection_, self.classes_ = booster, projection, classes
        self.n_iter_ = int(booster.num_boosted_rounds())
        self.n_features_in_ = len(projection.mean)
        return self


@dataclass(frozen=True)
class BoostedFamily(FamilyDefaults):
    """A grid of boosted trees; points with the same axes and bins share one quantised matrix per fold.

    Parameters
    ----------
    points
        Parameters of `BoostedHead` at each grid point. By default trees of two and of four levels, on
        64 principal axes: on all columns of an embedding a grid takes ten times as long.
    device
        As `BoostedHead`.
    """

    points: tuple[Mapping[str, Any], ...] = tuple({"max_depth": depth, "components": 64} for depth in (2, 4))
    device: str = "cpu"

    final: ClassVar[Final] = "ensemble"

    def on_device(self, device: str) -> Self:
        """Return the same grid, to be fitted there."""
        return replace(self, device=device)

    def out_of_fold(self, training: Training, folds: npt.NDArray[np.int64], *, seed: int) -> OutOfFold:
        """Score every row by trees, bins and axes that never saw its fold; the folds fix the number of rounds."""
        heads = self._heads(self.points, seed)
        n_targets, names = training.y.shape[1], np.unique(folds)
        scores = np.empty((len(heads), *training.y.shape, training.columns), np.float32)
        kept = np.empty((len(heads), n_targets, len(names)), np.int64)
        for place, fold in enumerate(counted("fold", names.tolist())):
            outside, scored = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            by_axes: dict[tuple[int, int], QuantisedRows] = {}
            for point, head in enumerate(heads):
                quantised = _quantised(by_axes, training, outside, head)
                rows = quantised.projection(training.X[scored])
                for target in range(n_targets):
                    booster = head.boost(quantised, target)
                    scores[point, scored, target] = margins(booster, rows, training.columns)
                    kept[point, target, place] = booster.num_boosted_rounds()
        refit_params = [
            [{"rounds": usual_stop(of_target), "validation_share": 0.0} for of_target in of_point]
            for of_point in kept
        ]
        return OutOfFold(scores=scores, refit_params=refit_params)

    def refit(
        self, training: Training, params_of_target: Sequence[Mapping[str, Any]], *, seed: int
    ) -> list[Head]:
        """Fit one head per target on all rows, for as many rounds as the folds' heads kept (their median)."""
        by_axes: dict[tuple[int, int], QuantisedRows] = {}
        fitted: list[Head] = []
        for target, head in enumerate(self._heads(params_of_target, seed)):
            quantised = _quantised(by_axes, training, np.arange(len(training.X)), head)
            booster = head.boost(quantised, target)
            fitted.append(head._set_learned(booster, quantised.projection, np.arange(training.n_classes)))
        return fitted

    def cross_fit(
        self,
        training: Training,
        folds: npt.NDArray[np.int64],
        params_of_target: Sequence[Mapping[str, Any]],
        *,
        seed: int,
    ) -> CrossFit:
        """Fit trees, bins and axes of every partition and fold; targets share the quantised rows of a fold."""
        scores = np.empty((len(folds), *training.y.shape, training.columns), np.float32)
        fitted: list[list[Head]] = [[] for _ in params_of_target]
        places = [(repeat, int(fold)) for repeat, of_row in enumerate(folds) for fold in np.unique(of_row)]
        for repeat, fold in counted("head", places):
            outside, scored = np.flatnonzero(folds[repeat] != fold), np.flatnonzero(folds[repeat] == fold)
            by_axes: dict[tuple[int, int], QuantisedRows] = {}
            for target, head in enumerate(self._heads(params_of_target, repeat_seed(seed, repeat, fold))):
                quantised = _quantised(by_axes, training, outside, head)
                booster, projection = head.boost(quantised, target), quantised.projection
                rows = projection(training.X[scored])
                scores[repeat, scored, target] = margins(booster, rows, training.columns)
                fitted[target].append(head._set_learned(booster, projection, np.arange(training.n_classes)))
        return CrossFit(heads=fitted, scores=scores)

    def _heads(self, params: Sequence[Mapping[str, Any]], seed: int) -> list[BoostedHead]:
        return [BoostedHead(**{"device": self.device, **each}, random_state=seed) for each in params]


def _quantised(
    by_axes: dict[tuple[int, int], QuantisedRows],
    training: Training,
    rows: npt.NDArray[np.int64],
    head: BoostedHead,
) -> QuantisedRows:
    key = (head.components, head.max_bin)
    if key not in by_axes:
        by_axes[key] = QuantisedRows.create(training, rows, components=head.components, max_bin=head.max_bin)
    return by_axes[key]
