"""Kappa, accuracy and F1 of grades against scikit-learn, on all cells and in each draw of patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from embedstore.view import MISSING
from heads.lumbar.grades import draw_grades
from heads.statistics.bootstrap import draw_patients

WEIGHTS = np.array([1.0, 2.0, 4.0])


def reference(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    right = accuracy_score(truth, said, sample_weight=WEIGHTS[truth])
    return {
        "kappa": cohen_kappa_score(truth, said),
        "linear_kappa": cohen_kappa_score(truth, said, weights="linear"),
        "quadratic_kappa": cohen_kappa_score(truth, said, weights="quadratic"),
        "accuracy": accuracy_score(truth, said),
        "weighted_accuracy": right,
        "weighted_f1": f1_score(truth, said, average="weighted", zero_division=0),
        "rsna_proxy": 16.1 * (1 - right),
    }


def test_values_are_those_of_scikit_learn_on_all_cells_and_in_a_draw() -> None:
    generator = np.random.default_rng(3)
    y = generator.choice(3, (40, 5), p=[0.6, 0.25, 0.15])
    said = np.where(generator.random(y.shape) < 0.5, y, generator.integers(0, 3, y.shape))
    said[:, 4] = np.minimum(said[:, 4], 1)
    y[generator.random(y.shape) < 0.1] = MISSING
    said[generator.random(y.shape) < 0.1] = MISSING
    patients = np.repeat(np.arange(20), 2).astype(str)
    draws = draw_patients(patients, draws=3, seed=1)
    found = draw_grades(y, said, draws)
    counted = (y != MISSING) & (said != MISSING)
    expected = reference(y[counted], said[counted])
    assert {name: entry.value for name, entry in found.items()} == pytest.approx(expected, abs=1e-12)
    assert found["kappa"].n == counted.sum()
    # The second draw, with each study as often as its patient was drawn.
    drawn = np.repeat(np.arange(40), draws.counts[1][draws.patient_of_unit].astype(int))
    truth, answer, cells = y[drawn], said[drawn], counted[drawn]
    expected = reference(truth[cells], answer[cells])
    assert {name: entry.drawn[1] for name, entry in found.items()} == pytest.approx(expected, abs=1e-12)


def test_a_class_that_is_never_said_has_f1_0_and_no_cell_gives_no_number() -> None:
    y, said = np.array([[0, 0, 1, 2]]), np.array([[0, 0, 0, 0]])
    draws = draw_patients(np.array(["a"]), draws=2, seed=0)
    found = draw_grades(y, said, draws)
    # By hand: F1 of the first class 2*2 / (2 + 4), of half of the cells; weighted accuracy 2 of 2 + 2 + 4.
    assert found["weighted_f1"].value == pytest.approx(2 / 3 / 2)
    assert found["weighted_accuracy"].value == pytest.approx(0.25)
    assert found["rsna_proxy"].value == pytest.approx(16.1 * 0.75)
    assert found["kappa"].value == pytest.approx(0)
    none = draw_grades(np.full((1, 4), MISSING), said, draws)
    assert all(np.isnan(entry.value) for entry in none.values())
