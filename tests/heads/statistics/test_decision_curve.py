"""Net benefit: by hand, against confusion counts, and against acting on everybody."""

from __future__ import annotations

import numpy as np
import pytest

from heads.statistics.bootstrap import draw_patients
from heads.statistics.decision_curve import THRESHOLDS, decision_curve


def _cases(n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    probability = generator.random(n)
    positive = generator.random(n) < probability
    return positive, probability, np.array([f"patient{row // 2}" for row in range(n)])


def test_net_benefit_is_that_of_the_paper_by_hand() -> None:
    # 100 cases, 20 found, 30 false: 0.2 - 0.3 * 0.2 / 0.8 = 0.125.
    probability = np.repeat([0.9, 0.9, 0.1], [20, 30, 50])
    positive = np.repeat([True, False, True], [20, 30, 50])
    draws = draw_patients(np.arange(100).astype(str), draws=20, seed=0)
    curve = decision_curve(positive, probability, draws, thresholds=(0.2,))
    assert curve.model[0].value == pytest.approx(0.125)
    assert curve.treat_all[0].value == pytest.approx(0.7 - 0.3 * 0.25)
    assert curve.model[0].n == 100


def test_draws_are_the_net_benefit_of_the_patients_drawn() -> None:
    positive, probability, patients = _cases(60)
    draws = draw_patients(patients, draws=2, seed=3)
    cut, found = 0.3, []
    for counts in draws.weights().astype(int):
        again_positive, again = np.repeat(positive, counts), np.repeat(probability, counts)
        true, false = again_positive & (again >= cut), ~again_positive & (again >= cut)
        found.append((true.sum() - false.sum() * cut / (1 - cut)) / counts.sum())
    curve = decision_curve(positive, probability, draws, thresholds=(cut,))
    ends = np.quantile(found, [0.025, 0.975])
    assert [curve.model[0].low, curve.model[0].high] == pytest.approx(ends.tolist(), abs=1e-6)


def test_right_probabilities_are_never_worse_than_acting_on_all_or_none() -> None:
    positive, probability, patients = _cases(20_000)
    curve = decision_curve(positive, probability, draw_patients(patients, draws=20, seed=0))
    for threshold, model, treat_all in zip(curve.thresholds, curve.model, curve.treat_all, strict=True):
        # Of uniform right probabilities: the integral of p - (1 - p) * odds above the threshold.
        expected = (1 - threshold**2) / 2 - threshold / (1 - threshold) * (1 - threshold) ** 2 / 2
        assert model.value == pytest.approx(expected, abs=0.01)
        assert model.value > max(treat_all.value, 0) - 0.005
        assert model.low <= model.value <= model.high


def test_acting_on_everybody_breaks_even_at_the_prevalence() -> None:
    positive = np.arange(100) < 30
    draws = draw_patients(np.arange(100).astype(str), draws=20, seed=0)
    curve = decision_curve(positive, np.zeros(100), draws, thresholds=(0.3,))
    assert curve.treat_all[0].value == pytest.approx(0)
    assert curve.model[0].value == 0


def test_a_curve_becomes_plain_json() -> None:
    positive, probability, patients = _cases()
    entries = decision_curve(positive, probability, draw_patients(patients, draws=20, seed=0)).to_json()
    assert [entry["threshold"] for entry in entries] == list(THRESHOLDS)
    assert set(entries[0]["net_benefit"]) >= {"value", "low", "high", "n"}
