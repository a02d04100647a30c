"""Where all were right, or none, there is an interval too: that of so many patients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from heads.intervals.rule_of_three import rule_of_three
from heads.statistics.bootstrap import Estimate, draw_patients, estimate
from heads.statistics.evaluation import Scored, evaluate


@pytest.mark.parametrize("patients", [1, 12, 300])
def test_the_limits_are_those_of_clopper_and_pearson_on_one_side(patients: int) -> None:
    low, high = rule_of_three(1.0, patients)
    assert (low, high) == (pytest.approx(beta.ppf(0.05, patients, 1)), 1.0)
    assert rule_of_three(0.0, patients) == (0.0, pytest.approx(1 - low))


def _right(y: np.ndarray, patients: np.ndarray, n_classes: int = 2) -> dict[str, Estimate]:
    """Return the metrics of a head that is right about every unit, with 0.8 for the true class."""
    probabilities = np.full((len(y), 1, n_classes), 0.2 / (n_classes - 1))
    probabilities[np.arange(len(y)), 0, y] = 0.8
    names = np.array([f"p{row}" for row in patients])
    return evaluate(Scored(y[:, None], probabilities, draw_patients(names, draws=50, seed=0)))


def test_patients_are_counted_and_not_units_of_the_class_that_a_metric_speaks_of() -> None:
    """Twelve patients of two units: three are positive, nine negative."""
    patients = np.repeat(np.arange(12), 2)
    found = _right((patients < 3).astype(int), patients)
    expected = {
        "accuracy": 12,
        "recall": 3,
        "specificity": 9,
        "precision": 3,
        "balanced_accuracy": 3,
        "auroc": 3,
    }
    for name, count in expected.items():
        assert found[name].patients == count, name
        assert (found[name].low, found[name].high) == (pytest.approx(0.05 ** (1 / count)), 1.0), name
    assert found["accuracy"].to_json()["rule_of_three_patients"] == 12
    assert np.isnan(found["log_loss"].low)


def test_the_kappa_of_all_right_falls_faster_than_their_share() -> None:
    """With shares of 1/4 and 3/4, chance agrees in 10/16: a share of right decisions of a makes 1 - (1 - a) 16/6."""
    patients = np.arange(12)
    found = _right((patients < 3).astype(int), patients)["kappa"]
    assert found.low == pytest.approx(1 - (1 - 0.05 ** (1 / 12)) * 16 / 6)
    assert (found.value, found.high, found.patients) == (1, 1, 12)


def test_of_several_classes_the_rarest_counts() -> None:
    y = np.repeat([0, 1, 2], [6, 4, 2])
    found = _right(y, np.arange(12), n_classes=3)
    assert {found[name].patients for name in ("auroc", "recall", "precision", "balanced_accuracy")} == {2}
    assert found["accuracy"].patients == 12


def test_a_rate_of_0_has_an_upper_limit() -> None:
    found = estimate(0.0, np.zeros(50), n=20, patients=20)
    assert (found.low, found.high) == (0.0, pytest.approx(1 - 0.05 ** (1 / 20)))


def test_a_number_that_all_draws_agree_on_and_is_no_rate_has_none() -> None:
    assert np.isnan(estimate(0.5, np.full(50, 0.5), n=20, patients=20).low)
    assert np.isnan(estimate(1.0, np.ones(50), n=20).low)
