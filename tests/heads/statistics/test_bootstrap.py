"""Intervals from redrawn patients against brute force, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.statistics import metric_functions as metrics
from heads.statistics.bootstrap import draw_patients, estimate, holm, paired_difference


def _patients(studies: list[int]) -> np.ndarray:
    return np.repeat([f"patient{index}" for index in range(len(studies))], studies)


def test_a_draw_takes_all_units_of_a_patient_or_none() -> None:
    patients = _patients([1, 3, 2, 4])
    weights = draw_patients(patients, draws=50, seed=0).weights()
    for patient in np.unique(patients):
        of_patient = weights[:, patients == patient]
        assert (of_patient == of_patient[:, :1]).all()


def test_a_draw_has_as_many_patients_as_there_are() -> None:
    draws = draw_patients(_patients([1, 3, 2, 4]), draws=50, seed=0)
    assert (draws.counts.sum(1) == 4).all()


def test_draws_depend_on_seed_and_patients_and_not_on_the_order_of_units() -> None:
    patients = _patients([1, 3, 2, 4])
    order = np.random.default_rng(0).permutation(len(patients))
    weights = draw_patients(patients, draws=20, seed=3).weights()
    assert (draw_patients(patients[order], draws=20, seed=3).weights() == weights[:, order]).all()
    assert (draw_patients(patients, draws=20, seed=4).weights() != weights).any()


def test_weights_of_some_units_are_columns_of_all() -> None:
    draws = draw_patients(_patients([1, 3, 2, 4]), draws=20, seed=0)
    assert (draws.weights(np.array([7, 0, 2])) == draws.weights()[:, [7, 0, 2]]).all()


def test_the_bootstrap_is_that_of_a_loop_over_patients() -> None:
    generator = np.random.default_rng(0)
    patients = _patients(generator.integers(1, 4, 30).tolist())
    y = generator.integers(0, 2, len(patients))
    score = generator.random(len(patients)) * 0.5 + y * 0.3
    probabilities = np.column_stack([1 - score, score])
    draws = draw_patients(patients, draws=40, seed=1)
    found = metrics.auroc(y, probabilities, draws.weights())
    names = np.unique(patients)
    for row, counts in enumerate(draws.counts):
        units = [
            unit
            for name, count in zip(names, counts, strict=True)
            for _ in range(int(count))
            for unit in np.flatnonzero(patients == name)
        ]
        positive, negative = score[units][y[units] == 1], score[units][y[units] == 0]
        wins = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
        assert found[row] == pytest.approx(wins, abs=1e-6)


def test_an_interval_of_a_mean_is_near_its_normal_theory() -> None:
    generator = np.random.default_rng(0)
    wrong = (generator.random(2000) < 0.2).astype(int)
    y = np.zeros(2000, int)
    weights = draw_patients(np.arange(2000).astype(str), draws=2000, seed=0).weights()
    drawn = metrics.accuracy(y, wrong, n_classes=2, weights=weights)
    found = estimate(float(1 - wrong.mean()), drawn, n=2000)
    half = 1.96 * np.sqrt(wrong.mean() * (1 - wrong.mean()) / 2000)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_patients_with_many_like_units_widen_the_interval() -> None:
    right = (np.arange(100) % 3 == 0).astype(int)
    y = np.ones(1000, int)
    widths = []
    for patients in (np.arange(1000).astype(str), np.repeat(np.arange(100).astype(str), 10)):
        weights = draw_patients(patients, draws=1000, seed=0).weights()
        drawn = metrics.accuracy(y, np.repeat(right, 10), n_classes=2, weights=weights)
        found = estimate(1 / 3, drawn, n=1000)
        widths.append(found.high - found.low)
    # Ten like units are one: the interval is wider by the square root of ten.
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.15)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    # Normal scores one deviation apart: AUROC = Phi(1 / sqrt 2) = 0.76025.
    truth, covered, repeats = 0.7602499, 0, 200
    for repeat in range(repeats):
        patients = np.repeat(np.arange(75), 2).astype(str)
        y = np.repeat(generator.integers(0, 2, 75), 2)
        score = generator.normal(size=150) + y
        draws = draw_patients(patients, draws=300, seed=repeat)
        probabilities = np.column_stack([-score, score])
        found = estimate(0.0, metrics.auroc(y, probabilities, draws.weights()), n=150)
        covered += found.low <= truth <= found.high
    # Binomial: 95 % of 200 has a deviation of 1.5 %; percentile intervals of this size are a little short.
    assert 0.90 <= covered / repeats <= 0.99


def test_undefined_draws_are_counted_and_left_out() -> None:
    found = estimate(0.5, np.array([0.4, np.nan, 0.6]), n=3)
    assert found.undefined_draws == 1
    assert 0.4 <= found.low <= found.high <= 0.6


def test_an_interval_of_mostly_undefined_draws_is_not_stated() -> None:
    found = estimate(0.5, np.array([0.4, np.nan, np.nan]), n=3)
    assert found.to_json() == {"value": 0.5, "low": None, "high": None, "n": 3, "undefined_draws": 2}


def test_a_score_set_does_not_differ_from_itself() -> None:
    drawn = np.random.default_rng(0).normal(size=100)
    found = paired_difference((0.7, 0.7), (drawn, drawn), n=10)
    assert found.p_value == 1
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (0, 0, 0)


def test_a_difference_of_one_sign_in_every_draw_has_the_smallest_p_value() -> None:
    drawn = np.random.default_rng(0).normal(size=99)
    assert paired_difference((1.0, 0.0), (drawn + 1, drawn), n=10).p_value == pytest.approx(2 / 100)


def test_pairing_sees_a_difference_that_two_intervals_hide() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(size=1000)
    better = shared + 0.3 + 0.05 * generator.normal(size=1000)
    found = paired_difference((0.3, 0.0), (better, shared), n=10)
    assert found.estimate.low > 0
    assert np.quantile(better, 0.025) < np.quantile(shared, 0.975)


def test_null_p_values_are_uniform() -> None:
    generator = np.random.default_rng(0)
    small = 0
    for repeat in range(200):
        right = generator.random((2, 100)) < 0.8
        weights = draw_patients(np.arange(100).astype(str), draws=200, seed=repeat).weights()
        drawn = weights @ right.T.astype(float) / 100
        small += paired_difference(tuple(right.mean(1)), (drawn[:, 0], drawn[:, 1]), n=100).p_value < 0.1
    assert 0.04 <= small / 200 <= 0.17


def test_holm_is_the_worked_example() -> None:
    # Smallest times 3, next times 2, largest times 1, never falling.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="found 0 units"):
        draw_patients(np.array([], str), seed=0)


def test_draws_that_all_agree_give_no_interval() -> None:
    """Five patients evaluated right are right in every draw; the sixth may not be."""
    weights = draw_patients(np.array(list("abcde")), draws=200, seed=0).weights()
    right = np.ones(5, int)
    drawn = metrics.accuracy(right, right, n_classes=2, weights=weights)
    assert estimate(1.0, drawn, n=5).to_json() == {"value": 1.0, "low": None, "high": None, "n": 5}


def test_a_difference_that_all_draws_agree_on_has_an_interval_only_at_zero() -> None:
    same, other = np.ones(100), np.full(100, 0.8)
    assert paired_difference((1.0, 1.0), (same, same), n=9).estimate.to_json()["low"] == 0.0
    assert paired_difference((1.0, 0.8), (same, other), n=9).estimate.to_json()["low"] is None


def test_a_metric_that_all_units_leave_undefined_has_no_interval() -> None:
    found = estimate(np.nan, np.linspace(0.5, 2.0, 200), n=30)
    assert np.isnan([found.value, found.low, found.high]).all()
