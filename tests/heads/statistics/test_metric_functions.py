"""Metrics against scikit-learn, hand calculation, and rows repeated as often as their weight."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy.optimize import minimize

from embedstore.errors import UsageError
from heads.intervals.calibration_error import equal_mass_bins
from heads.statistics import metric_functions as metrics

DECISION_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "kappa",
    "quadratic_kappa",
)
PROBABILITY_METRICS = (
    "auroc",
    "auprc",
    "log_loss",
    "brier",
    "brier_skill",
    "calibration_slope",
    "calibration_intercept",
)


def _cases(n_classes: int, n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, n_classes, n)
    # Rounded, so that there are many ties.
    logits = np.round(generator.normal(size=(n, n_classes)) + 0.8 * np.eye(n_classes)[y], 1)
    exponentials = np.exp(logits)
    return y, exponentials / exponentials.sum(1, keepdims=True)


def _reference_specificity(y: np.ndarray, decided: np.ndarray, average: str) -> float:
    return (
        float(reference.recall_score(y == 0, decided == 0))
        if average == "binary"
        else float(np.mean([reference.recall_score(y != k, decided != k) for k in range(3)]))
    )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_decisions_score_as_in_scikit_learn(n_classes: int) -> None:
    y, probabilities = _cases(n_classes)
    decided = probabilities.argmax(1)
    average = "binary" if n_classes == 2 else "macro"
    expected = {
        "accuracy": reference.accuracy_score(y, decided),
        "balanced_accuracy": reference.balanced_accuracy_score(y, decided),
        "precision": reference.precision_score(y, decided, average=average),
        "recall": reference.recall_score(y, decided, average=average),
        "specificity": _reference_specificity(y, decided, average),
        "f1": reference.f1_score(y, decided, average=average),
        "kappa": reference.cohen_kappa_score(y, decided),
        "quadratic_kappa": reference.cohen_kappa_score(y, decided, weights="quadratic"),
    }
    found = {name: getattr(metrics, name)(y, decided, n_classes=n_classes)[0] for name in DECISION_METRICS}
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_score_as_in_scikit_learn(n_classes: int) -> None:
    y, probabilities = _cases(n_classes)
    one_hot = np.eye(n_classes)[y]
    shown = [1] if n_classes == 2 else [0, 1, 2]
    expected = {
        "auroc": np.mean([reference.roc_auc_score(y == k, probabilities[:, k]) for k in shown]),
        "auprc": np.mean([reference.average_precision_score(y == k, probabilities[:, k]) for k in shown]),
        "log_loss": reference.log_loss(y, probabilities),
        "brier": sum(reference.brier_score_loss(y == k, probabilities[:, k]) for k in shown),
        "brier_skill": reference.r2_score(one_hot, probabilities, multioutput="variance_weighted"),
    }
    found = {name: getattr(metrics, name)(y, probabilities)[0] for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_weight_counts_as_so_many_equal_rows(n_classes: int, dtype: type) -> None:
    y, probabilities = _cases(n_classes)
    counts = np.random.default_rng(1).poisson(1.0, (7, len(y)))
    decided = probabilities.argmax(1)
    for row, repeats in enumerate(counts):
        rows = np.repeat(np.arange(len(y)), repeats)
        for name in PROBABILITY_METRICS:
            metric = getattr(metrics, name)
            found = metric(y, probabilities, counts.astype(dtype))[row]
            assert found == pytest.approx(metric(y[rows], probabilities[rows])[0], abs=2e-5), name
        for name in DECISION_METRICS:
            metric = getattr(metrics, name)
            found = metric(y, decided, n_classes=n_classes, weights=counts.astype(dtype))[row]
            assert found == pytest.approx(
                metric(y[rows], decided[rows], n_classes=n_classes)[0], abs=1e-10
            ), name


def test_auroc_is_the_share_of_pairs_in_order_with_ties_as_half() -> None:
    y = np.array([0, 0, 1, 1])
    score = np.array([0.1, 0.4, 0.4, 0.8])
    # Pairs (negative, positive): 0.1<0.4, 0.1<0.8, 0.4=0.4, 0.4<0.8: 3.5 of 4.
    assert metrics.auroc(y, np.column_stack([1 - score, score]))[0] == 3.5 / 4


def test_ece_is_what_the_hand_finds() -> None:
    probability = np.array([0.1, 0.2, 0.6, 0.9])
    y = np.array([0, 1, 1, 1])
    # Two bins of two: |0.15 - 0.5| and |0.75 - 1|, each half of the cases.
    found = metrics.ece(y, np.column_stack([1 - probability, probability]), bins=2)[0]
    assert found == pytest.approx((0.35 + 0.25) / 2)


def test_ece_keeps_its_bins_in_every_draw() -> None:
    probability = np.array([0.1, 0.2, 0.6, 0.9])
    y = np.array([0, 1, 1, 1])
    weights = np.array([[2.0, 0.0, 1.0, 1.0]])
    found = metrics.ece(y, np.column_stack([1 - probability, probability]), weights, bins=2)[0]
    assert found == pytest.approx((abs(0.2 - 0) + abs(1.5 - 2)) / 4)


def test_equal_probabilities_share_a_bin() -> None:
    bins = equal_mass_bins(np.array([0.5, 0.1, 0.5, 0.5, 0.9, 0.2]), 3)
    assert len(set(bins[[0, 2, 3]].tolist())) == 1
    assert bins.tolist() == [1, 0, 1, 1, 2, 0]


def test_classwise_ece_is_the_mean_over_classes() -> None:
    y, probabilities = _cases(3)
    each = [
        metrics.ece((y == k).astype(int), np.column_stack([1 - probabilities[:, k], probabilities[:, k]]))[0]
        for k in range(3)
    ]
    assert metrics.ece(y, probabilities)[0] == pytest.approx(np.mean(each))


def test_a_class_without_a_case_has_no_calibration_slope() -> None:
    """Of three classes one never occurs: nothing says how steep its probabilities should be."""
    y = np.array([0, 1, 0, 1, 0, 1])
    probabilities = np.random.default_rng(0).dirichlet((1, 1, 1), 6)
    assert np.isnan(metrics.calibration_slope(y, probabilities)[0])


def test_calibration_slope_and_intercept_are_the_logistic_regression_on_the_logit() -> None:
    y, probabilities = _cases(2)
    logit = np.log(probabilities[:, 1] / probabilities[:, 0])

    def loss(parameters: np.ndarray) -> float:
        score = parameters[0] + parameters[1] * logit
        return float(np.sum(np.logaddexp(0, score) - y * score))

    slope = minimize(loss, [0.0, 1.0], tol=1e-10).x[1]
    intercept = minimize(lambda shift: loss(np.array([shift[0], 1.0])), [0.0], tol=1e-10).x[0]
    assert metrics.calibration_slope(y, probabilities)[0] == pytest.approx(slope, abs=1e-5)
    assert metrics.calibration_intercept(y, probabilities)[0] == pytest.approx(intercept, abs=1e-5)


def test_overconfident_probabilities_have_a_slope_below_one() -> None:
    y, probabilities = _cases(2, n=2000)
    sharpened = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    slope, sharp = metrics.calibration_slope(y, probabilities)[0], metrics.calibration_slope(y, sharpened)[0]
    assert sharp == pytest.approx(slope / 3, rel=1e-4)


def test_a_draw_with_one_class_has_no_metric_of_two() -> None:
    y, probabilities = _cases(2)
    weights = np.stack([np.ones(len(y)), (y == 0).astype(float)])
    for name in ("auroc", "auprc", "calibration_slope", "calibration_intercept", "brier_skill"):
        whole, one_class = getattr(metrics, name)(y, probabilities, weights)
        assert np.isfinite(whole), name
        assert np.isnan(one_class), name
    assert np.isnan(metrics.balanced_accuracy(y, y, n_classes=2, weights=weights)[1])


def test_separable_classes_have_no_calibration_slope() -> None:
    y = np.array([0, 0, 1, 1])
    probability = np.array([0.1, 0.2, 0.8, 0.9])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.calibration_slope(y, np.column_stack([1 - probability, probability]))[0])


def test_a_constant_score_has_no_calibration_slope() -> None:
    y = np.array([0, 1] * 30)
    # 1e-13 is what a matrix product leaves between equal rows.
    probability = 0.3 + 1e-13 * np.arange(60) / 60
    probabilities = np.column_stack([1 - probability, probability])
    assert np.isnan(metrics.calibration_slope(y, probabilities)[0])
    assert np.isfinite(metrics.calibration_intercept(y, probabilities)[0])


def test_a_draw_of_equal_scores_has_no_calibration_slope() -> None:
    y, probabilities = _cases(2)
    probabilities[:20] = [0.4, 0.6]
    weights = np.stack([np.ones(len(y)), np.arange(len(y)) < 20]).astype(np.float32)
    whole, equal = metrics.calibration_slope(y, probabilities, weights)
    assert np.isfinite(whole)
    assert np.isnan(equal)


def test_precision_without_a_positive_decision_is_undefined() -> None:
    assert np.isnan(metrics.precision(np.array([0, 1]), np.array([0, 0]), n_classes=2)[0])


def test_a_certain_wrong_answer_costs_much_and_not_everything() -> None:
    found = metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]]))[0]
    assert found == pytest.approx(-np.log(metrics.PROBABILITY_FLOOR))


def test_the_mura_rule_of_a_known_table_has_its_known_kappa() -> None:
    # 20 + 15 agree of 50; by chance (25 * 30 + 25 * 20) / 2500 = 0.5: (0.7 - 0.5) / 0.5.
    y = np.array([0] * 25 + [1] * 25)
    decided = np.array([0] * 20 + [1] * 5 + [0] * 10 + [1] * 15)
    assert metrics.kappa(y, decided, n_classes=2)[0] == pytest.approx(0.4)


def test_a_class_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="from 0 to 1; found values from 0 to 2"):
        metrics.accuracy(np.array([0, 2]), np.array([0, 1]), n_classes=2)


def test_weights_of_another_shape_are_refused() -> None:
    y, probabilities = _cases(2)
    for metric in (metrics.auroc, metrics.log_loss):
        with pytest.raises(UsageError, match=r"shape \(draws, 200\); found \(2, 3\)"):
            metric(y, probabilities, np.ones((2, 3)))


@pytest.mark.parametrize("size", [3, 8, 20, 27])
def test_probabilities_that_part_the_classes_have_no_slope(size):
    y = np.repeat([0, 1], 50)
    logit = np.where(y == 1, size, -size) + np.random.default_rng(0).normal(0, 0.3, 100)
    p = 1 / (1 + np.exp(-logit))
    parted = np.column_stack([1 - p, p])
    assert np.isnan(metrics.calibration_slope(y, parted)[0])
    # The other way round, and with one case of each class at the same probability, it is parted still.
    assert np.isnan(metrics.calibration_slope(1 - y, parted)[0])
    p[[0, 99]] = 0.5
    assert np.isnan(metrics.calibration_slope(y, np.column_stack([1 - p, p]))[0])
    # One case on the wrong side makes it finite; so do the draws that hold it.
    p[0] = p[99] + 0.2
    touching = np.column_stack([1 - p, p])
    weights = np.ones((2, 100), np.float32)
    weights[1, 0] = 0
    slopes = metrics.calibration_slope(y, touching, weights)
    assert np.isfinite(slopes[0]) or size > 8  # Newton's steps end at 60 logits
    assert np.isnan(slopes[1])
