"""Small regressions of many draws, each against scikit-learn on the cases that were drawn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from heads.intervals.drawn_regression import DrawnRegression
from heads.statistics.metric_functions import calibration_slope


def test_each_draw_has_the_coefficients_of_its_own_cases() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=300)
    positive = generator.random(300) < 1 / (1 + np.exp(-(0.5 + 1.5 * x)))
    weights = generator.poisson(1, (6, 300)).astype(np.float32)
    weights[5, positive] = 0
    case = DrawnRegression(np.column_stack([np.ones(300), x]), positive, np.zeros(300))
    found = case.solve(weights, np.array([[0.0, 1.0]]))
    for draw in range(5):
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
            x[:, None], positive, weights[draw]
        )
        expected = [model.intercept_[0], model.coef_[0, 0]]
        assert found[draw] == pytest.approx(expected, abs=1e-4)
    # A draw of one class has no solution.
    assert np.isnan(found[5]).all()


def test_a_draw_whose_classes_are_parted_has_no_slope_however_many_of_the_last_cases_it_lacks() -> None:
    """Fifty negatives above the lowest positive keep the classes together; in the second draw none of them is."""
    score = np.linspace(0.05, 0.95, 200)
    y = (np.arange(200) >= 100).astype(np.int64)
    y[140:190] = 0
    weights = np.ones((2, 200))
    weights[1, 140:190] = 0
    slopes = calibration_slope(y, np.column_stack([1 - score, score]), weights)
    assert np.isfinite(slopes[0])
    assert np.isnan(slopes[1])
