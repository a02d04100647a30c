"""Boosted trees against plain `xgboost.train`, scikit-learn's principal axes and worked cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xgboost
from sklearn.decomposition import PCA
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.errors import DataError, UsageError
from heads.estimators.boosted import BoostedFamily, BoostedHead
from heads.principal_axes import Projection
from heads.solvers.early_stopping import hold_out
from heads.testing import MISSING, check_chance, check_family, check_head, folds_of, make_training

SMALL = {"rounds": 30, "patience": 5, "learning_rate": 0.3}
GRID = BoostedFamily((SMALL | {"max_depth": 2}, SMALL | {"max_depth": 3, "components": 4, "subsample": 0.7}))
WEIGHTS_ARE_NOT_COPIES = {
    "check_sample_weight_equivalence_on_dense_data": "bins are quantiles of the rows, whatever they weigh"
}


@parametrize_with_checks(
    [BoostedHead(rounds=10), BoostedHead(rounds=10, components=2, validation_share=0.0)],
    expected_failed_checks=lambda head: WEIGHTS_ARE_NOT_COPIES,
)
def test_the_head_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("components", [0, 5])
def test_the_head_keeps_the_contract(n_classes: int, components: int) -> None:
    check_head(BoostedHead(**SMALL, components=components), n_classes=n_classes)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_grid_keeps_the_contract(n_classes: int) -> None:
    check_family(GRID, BoostedHead, n_classes=n_classes)


def test_labels_without_signal_give_chance() -> None:
    check_chance(BoostedFamily(({"max_depth": 2},)), worse_by=0.05)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_are_those_of_plain_xgboost(n_classes: int, weighted: bool) -> None:
    training = make_training(n_classes=n_classes, targets=1)
    X, y = training.X, training.y[:, 0]
    weight = np.random.default_rng(1).uniform(0.5, 2, 240) if weighted else np.ones(240)
    head = BoostedHead(3, rounds=12, learning_rate=0.2, validation_share=0.0).fit(X, y, weight)
    matrix = xgboost.QuantileDMatrix(X, y, max_bin=64)
    matrix.set_info(weight=weight / weight.mean())
    parameters = {"max_depth": 3, "learning_rate": 0.2, "max_bin": 64}
    parameters |= (
        {"objective": "binary:logistic"}
        if n_classes == 2
        else {"objective": "multi:softprob", "num_class": n_classes}
    )
    expected = xgboost.train(parameters, matrix, 12).predict(xgboost.DMatrix(X), output_margin=True)
    assert head.decision_function(X) == pytest.approx(expected, abs=1e-5)


def test_exclusive_or_is_learned_where_a_line_would_fail() -> None:
    X = np.random.default_rng(0).uniform(-1, 1, (800, 2)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    head = BoostedHead(rounds=100).fit(X[:600], y[:600])
    assert (head.predict(X[600:]) == y[600:]).mean() > 0.9


def test_separable_classes_are_separated() -> None:
    training = make_training(targets=1, signal=12.0)
    head = BoostedHead(**SMALL).fit(training.X[:160], training.y[:160, 0])
    assert (head.predict(training.X[160:]) == training.y[160:, 0]).mean() > 0.95


def test_boosting_stops_at_the_best_held_out_loss() -> None:
    training = make_training(n=400, targets=1, signal=1.0)
    X, y = training.X, training.y[:, 0]
    head = BoostedHead(rounds=200, patience=200, learning_rate=0.3).fit(X, y, groups=training.groups)
    held_out = hold_out(training, 0, np.arange(400), share=0.1, seed=0)[1]
    assert head.n_iter_ < 200
    matrix = xgboost.DMatrix(X[held_out])
    losses = [
        log_loss(y[held_out], head.booster_.predict(matrix, iteration_range=(0, rounds)))
        for rounds in range(1, head.n_iter_ + 1)
    ]
    assert int(np.argmin(losses)) == head.n_iter_ - 1
    longer = BoostedHead(rounds=head.n_iter_ + 5, validation_share=0.0, learning_rate=0.3)
    assert longer.fit(X, y).n_iter_ == head.n_iter_ + 5


def test_held_out_rows_move_no_tree() -> None:
    training = make_training(n=400, targets=1)
    X, y = training.X, training.y[:, 0]
    held_out = hold_out(training, 0, np.arange(400), share=0.1, seed=0)[1]
    head = BoostedHead(rounds=8, patience=8).fit(X, y, groups=training.groups)
    weight = np.ones(400)
    weight[held_out] = 0
    matrix = xgboost.QuantileDMatrix(X, y, max_bin=64)
    matrix.set_info(weight=weight)
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, "learning_rate": 0.1, "max_bin": 64}, matrix, 8
    )
    expected = booster.predict(xgboost.DMatrix(X), output_margin=True, iteration_range=(0, head.n_iter_))
    assert head.decision_function(X) == pytest.approx(expected, abs=1e-5)


def test_principal_axes_are_scikit_learns() -> None:
    X = make_training(targets=1).X
    projection = Projection.fit(X, 3)
    theirs = PCA(3, svd_solver="full").fit(X.astype(np.float64))
    assert np.abs(projection.axes) == pytest.approx(np.abs(theirs.components_), abs=1e-6)
    expected = (X - theirs.mean_) @ projection.axes.T
    assert projection(X) == pytest.approx(expected, abs=1e-5)
    assert projection(X[5:6]).tobytes() == projection(X)[5:6].tobytes()
    assert Projection.fit(X, 0)(X) is X
    assert Projection.fit(X, 100).axes.shape == (8, 8)


def test_the_grid_is_each_point_alone() -> None:
    training = make_training()
    folds = folds_of(training)
    scores = GRID.out_of_fold(training, folds, seed=0).scores
    inside = folds != 1
    for index, point in enumerate(GRID.points):
        alone = BoostedHead(**point, random_state=0).fit(
            training.X[inside], training.y[inside, 1], groups=training.groups[inside]
        )
        expected = alone.decision_function(training.X[~inside])
        assert scores[index, ~inside, 1, 0] == pytest.approx(expected, abs=1e-5)


def test_points_with_the_same_axes_and_bins_share_one_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = xgboost.QuantileDMatrix

    def counted(*arguments, **options):
        made.append(options.get("ref"))
        return plain(*arguments, **options)

    monkeypatch.setattr(xgboost, "QuantileDMatrix", counted)
    grid = BoostedFamily(tuple(SMALL | {"max_depth": depth} for depth in (1, 2, 3)))
    training = make_training()
    grid.out_of_fold(training, folds_of(training), seed=0)
    # Three folds: one matrix each, and one of the rows held out for each of two targets.
    assert sum(reference is None for reference in made) == 3
    assert sum(reference is not None for reference in made) == 6


def test_a_target_without_labels_in_most_rows_learns_from_the_rest() -> None:
    training = make_training(n=600, targets=1)
    y = training.y.copy()
    y[np.arange(600) // 2 % 3 > 0] = MISSING
    fitted = GRID.refit(replace(training, y=y), GRID.points[:1], seed=0)[0]
    known = y[:, 0] != MISSING
    alone = BoostedHead(**GRID.points[0]).fit(training.X[known], y[known, 0], groups=training.groups[known])
    difference = fitted.predict_proba(training.X) - alone.predict_proba(training.X)
    assert np.abs(difference).mean() < 0.05


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"components": -1}, "found -1, 64"),
        ({"max_bin": 1}, "found 0, 1"),
        ({"device": "tpu"}, "device must be auto, cpu or cuda for xgboost; found 'tpu'"),
        ({"learning_rate": -1.0}, "refuses a parameter"),
        ({"validation_share": 0.9}, "found 0.9"),
    ],
)
def test_a_wrong_parameter_is_named(wrong: dict[str, object], message: str) -> None:
    training = make_training(targets=1)
    with pytest.raises(UsageError, match=message):
        BoostedHead(**wrong).fit(training.X, training.y[:, 0])


def test_edited_arrays_are_refused() -> None:
    training = make_training(targets=1)
    arrays = BoostedHead(rounds=3).fit(training.X, training.y[:, 0]).to_arrays()
    with pytest.raises(DataError, match="not readable"):
        BoostedHead.from_arrays(arrays | {"model": np.zeros(20, np.uint8)}, {})
    with pytest.raises(DataError, match="axes as long as its mean"):
        BoostedHead.from_arrays(arrays | {"mean": arrays["mean"][:3]}, {})
    with pytest.raises(DataError, match="takes 8 columns; its arrays make 2"):
        BoostedHead.from_arrays(arrays | {"axes": np.zeros((2, 8))}, {})
