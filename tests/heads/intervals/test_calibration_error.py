"""What is said of a calibration error holds where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from heads.intervals.calibration_error import bin_probabilities, estimate_error, join_bins
from heads.statistics.bootstrap import draw_patients
from heads.statistics.evaluation import Scored, draw_metrics, evaluate


def _said(
    probability: np.ndarray, y: np.ndarray, patients: np.ndarray | None = None, *, draws: int = 200
) -> Scored:
    names = np.array([f"p{row}" for row in (np.arange(len(y)) if patients is None else patients)])
    both = np.column_stack([1 - probability, probability])[:, None]
    return Scored(y[:, None].astype(int), both, draw_patients(names, draws=draws, seed=0))


@pytest.mark.parametrize("n", [200, 1000])
def test_the_interval_of_a_perfect_head_reaches_0_and_its_ece_is_that_of_noise(n: int) -> None:
    values, debiased, expected, reach = [], [], [], []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        p = generator.beta(2, 2, n)
        entry = evaluate(_said(p, generator.random(n) < p), ["ece"])["ece"]
        values.append(entry.value)
        debiased.append(entry.debiased)
        expected.append(entry.if_perfect)
        reach.append(entry.low <= 0.01)
    assert np.mean(reach) >= 0.9
    assert np.mean(expected) == pytest.approx(np.mean(values), rel=0.1)
    assert np.mean(debiased) < 0.6 * np.mean(values)


def test_the_interval_of_a_head_that_is_too_extreme_holds_the_true_error() -> None:
    """Two bins; the true error is the mean distance of the stated probabilities of each from the true ones."""
    held, biased, debiased = [], [], []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        p = generator.choice([0.3, 0.7], 60)
        stated = np.where(p < 0.5, 0.15, 0.85)
        entry = evaluate(_said(stated, generator.random(60) < p), ["ece"])["ece"]
        held.append(entry.low <= 0.15 <= entry.high)
        biased.append(entry.value)
        debiased.append(entry.debiased)
    assert np.mean(held) >= 0.9
    assert np.mean(debiased) == pytest.approx(0.15, abs=0.015)
    assert np.mean(biased) > np.mean(debiased)


def test_labels_that_are_alike_within_patients_widen_the_interval_and_the_noise_of_a_perfect_head() -> None:
    generator = np.random.default_rng(0)
    p = np.full(400, 0.5)
    p[:200] = 0.4
    alike = np.repeat(generator.random(40), 10) < p
    patients = np.repeat(np.arange(40), 10)
    of_patients = evaluate(_said(p, alike, patients), ["ece"])["ece"]
    of_units = evaluate(_said(p, alike), ["ece"])["ece"]
    assert of_patients.if_perfect > 2 * of_units.if_perfect
    assert of_patients.low <= of_units.low


def test_what_a_perfect_head_shows_is_the_mean_distance_of_binomial_counts() -> None:
    """Each of two bins has 50 units of one probability: E|K - 50 p| / 100 of the binomial distribution, twice."""
    p = np.repeat([0.2, 0.6], 50)
    y = np.concatenate([np.arange(50) < 10, np.arange(50) < 30])
    bins = bin_probabilities(y.astype(int), np.column_stack([1 - p, p]), bins=2)
    drawn = draw_metrics(_said(p, y, draws=1000), ["ece"])["ece"].binned
    assert drawn is not None
    found = estimate_error(drawn.bins, drawn.drawn, patients=100, level=0.95)
    counts = np.arange(51)
    expected = sum(
        float(np.abs(counts - 50 * share) @ binom.pmf(counts, 50, share)) / 100 for share in (0.2, 0.6)
    )
    assert bins.counts.sum() == 100
    assert found.if_perfect == pytest.approx(expected, rel=0.08)
    # What is stated is what is observed: no error, and the interval begins at none. It is small by luck:
    # the upper limit is no less than what a perfect head usually shows.
    assert found.high > expected * 0.9
    assert (found.debiased, found.low) == (0, 0)
    assert found.high > 0


def test_the_error_of_several_probabilities_is_the_mean_of_theirs() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, (2, 80))
    p = generator.random((2, 80))
    parts = [bin_probabilities(y[k], np.column_stack([1 - p[k], p[k]]), bins=4) for k in range(2)]
    errors = [np.abs(part.deviations).sum() for part in parts]
    assert np.abs(join_bins(parts).deviations).sum() == pytest.approx(np.mean(errors))


def test_one_patient_tells_nothing() -> None:
    p = np.linspace(0.1, 0.9, 60)
    entry = evaluate(_said(p, p > 0.5, np.zeros(60, int)), ["ece"])["ece"]
    assert np.isfinite(entry.value)
    assert np.isnan([entry.low, entry.high, entry.debiased]).all()
