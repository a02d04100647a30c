"""Curves: the points that are drawn, and the areas under them, with ties and without."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from heads.reporting.charts import precision_recall_points, roc_chart, roc_points
from heads.statistics import metric_functions as metrics

TRUTH = np.random.default_rng(0).random(80) < 0.4
SCORES = {
    "no ties": np.random.default_rng(1).random(80),
    "ties": np.round(np.random.default_rng(2).random(80) + 0.3 * TRUTH, 1),
    "constant": np.full(80, 0.3),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_a_roc_curve_goes_straight_through_the_points_of_distinct_thresholds(score: np.ndarray) -> None:
    false, found = roc_points(TRUTH, score)
    expected_false, expected_found, _ = roc_curve(TRUTH, score, drop_intermediate=False)
    np.testing.assert_allclose(false, expected_false)
    np.testing.assert_allclose(found, expected_found)
    area = np.trapezoid(found, false)
    assert area == pytest.approx(metrics.auroc(TRUTH, np.column_stack([1 - score, score]))[0])


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_the_area_under_the_precision_steps_is_average_precision(score: np.ndarray) -> None:
    recall, precision = precision_recall_points(TRUTH, score)
    assert (recall[0], recall[-1]) == (0, 1)
    area = float(np.sum(np.diff(recall) * precision[1:]))
    assert area == pytest.approx(metrics.auprc(TRUTH, np.column_stack([1 - score, score]))[0])


def test_the_roc_curve_of_a_constant_score_is_drawn_as_the_diagonal() -> None:
    page = roc_chart({"finding": (TRUTH, SCORES["constant"])}, name="a")
    paths = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--series-1\)', page)
    assert paths[0].split().count("L") == 1
    numbers = [float(number) for number in re.findall(r"[-\d.]+", paths[0])]
    assert numbers[2] - numbers[0] == pytest.approx(numbers[1] - numbers[3], rel=1e-3)
    assert numbers[2] > numbers[0]
