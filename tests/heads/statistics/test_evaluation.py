"""What is measured on few units: bins of an ECE follow their number."""

from __future__ import annotations

import numpy as np
import pytest

from heads.statistics import metric_functions as metrics
from heads.statistics.bootstrap import draw_patients
from heads.statistics.evaluation import Scored, evaluate
from heads.statistics.metrics import ece_bins


def _scored(n: int, n_classes: int = 2) -> Scored:
    generator = np.random.default_rng(n)
    probabilities = generator.dirichlet(np.ones(n_classes), n)[:, None, :]
    y = generator.integers(0, n_classes, (n, 1))
    patients = np.array([f"p{row}" for row in range(n)])
    return Scored(y, probabilities, draw_patients(patients, draws=50, seed=0))


def test_an_ece_has_a_bin_for_every_twenty_units() -> None:
    assert [ece_bins(n) for n in (0, 39, 40, 59, 60, 299, 300, 10_000)] == [0, 0, 2, 2, 3, 14, 15, 15]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_an_ece_is_that_of_its_number_of_bins(n_classes: int) -> None:
    for n in (45, 310):
        scored = _scored(n, n_classes)
        found = evaluate(scored)["ece"]
        expected = metrics.ece(scored.y[:, 0], scored.probabilities[:, 0], bins=ece_bins(n))[0]
        assert found.value == pytest.approx(expected)
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize("n_classes", [2, 3])
def test_few_units_have_no_ece(n_classes: int) -> None:
    few = evaluate(_scored(39, n_classes))
    assert few["ece"].to_json()["value"] is None
    assert few["ece"].to_json()["low"] is None
    assert np.isfinite(few["log_loss"].value)


def test_a_subgroup_of_few_units_has_no_ece_though_the_whole_has() -> None:
    scored = _scored(100)
    assert np.isfinite(evaluate(scored)["ece"].value)
    assert np.isnan(evaluate(scored.take(np.arange(30)))["ece"].value)
