"""The confidence of names: what a margin is worth, and how many spines are taken for others."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from heads.localising.confidence import Confidence, learn_confidence, variant_limits, variant_of


def test_of_n_right_studies_the_mean_is_one_below_certainty():
    """Platt (1999): targets (n + 1) / (n + 2) and 1 / (m + 2)."""
    found = learn_confidence(np.full(18, 40.0), np.ones(18, bool))
    assert found.of([40.0]) == pytest.approx(19 / 20, abs=1e-6)


def test_the_curve_is_that_of_a_logistic_regression_on_moved_labels():
    chance = np.random.default_rng(0)
    margins = chance.normal(15, 20, 200)
    right = chance.random(200) < 1 / (1 + np.exp(-margins / 10))
    found = learn_confidence(margins, right)
    # A moved label is a case of both classes, weighted.
    wanted = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    X = np.concatenate([margins, margins])[:, None] / 10
    y = np.repeat([1, 0], 200)
    reference = LogisticRegression(C=1 / 1e-2, tol=1e-10).fit(
        X, y, sample_weight=np.concatenate([wanted, 1 - wanted])
    )
    assert found.slope == pytest.approx(float(reference.coef_[0, 0]), abs=1e-4)
    assert found.intercept == pytest.approx(float(reference.intercept_[0]), abs=1e-4)


def test_a_larger_margin_never_makes_names_less_likely():
    margins = np.array([1.0, 2, 3, 50, 60, 70])
    found = learn_confidence(margins, margins < 10)
    assert found.slope == 0
    assert found.of([0.0]) == pytest.approx(found.of([100.0]))
    assert found.of([0.0]) == pytest.approx(0.5)


def test_a_curve_comes_back_from_json():
    found = Confidence(0.5, 1.25)
    assert Confidence.from_json(found.to_json()) == found


def test_five_in_a_thousand_are_taken_for_another_number_of_discs():
    gaps = [{4: value, 6: -1.0} for value in np.linspace(-1, 1, 1001)]
    limits = variant_limits(gaps, (4, 6))
    assert sum(variant_of(gap, limits) == 4 for gap in gaps) == 5
    # A spine that fits no better with six discs than with five has five.
    assert limits[6] == 0


def test_the_number_that_fits_best_is_named():
    limits = {4: 0.5, 6: 0.1}
    assert variant_of({4: 0.4, 6: 0.1}, limits) is None
    assert variant_of({4: 0.7, 6: 0.2}, limits) == 4
    assert variant_of({4: 0.7, 6: 0.4}, limits) == 6
    assert variant_of({}, limits) is None
    assert variant_of({6: 5.0}, variant_limits([], (4, 6))) is None
