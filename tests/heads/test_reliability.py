"""The ratio by which out-of-fold scores are drawn together, by hand and against heads drawn at random."""

from __future__ import annotations

import numpy as np
import pytest

from heads.reliability import drawn_together, reliability_ratio


def test_the_ratio_is_that_of_the_variances_of_the_two_means() -> None:
    # Two repeats of three units: variances over repeats 2, 0 and 2, so 4/3 of a head; means 0, 3 and 6 vary by 9.
    scores = np.array([[-1.0, 3.0, 5.0], [1.0, 3.0, 7.0]])[:, :, None]
    true = 9 - (4 / 3) / 2
    assert reliability_ratio(scores, heads=10) == pytest.approx((true + (4 / 3) / 10) / 9)
    # Drawn to the mean of the means, which is 3.
    assert drawn_together(scores, 0.5)[:, 0].tolist() == [1.5, 3.0, 4.5]


def test_of_several_columns_a_common_shift_does_not_count() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(3, 40, 4))
    shifted = scores + generator.normal(size=(3, 40, 1)) * 50
    assert reliability_ratio(shifted, heads=15) == pytest.approx(reliability_ratio(scores, heads=15))


def test_heads_that_agree_need_no_correction_and_heads_of_noise_need_the_most() -> None:
    same = np.repeat(np.random.default_rng(0).normal(size=(1, 30, 1)), 4, axis=0)
    assert reliability_ratio(same, heads=20) == pytest.approx(1)
    assert reliability_ratio(np.zeros((4, 30, 1)), heads=20) == 1
    # Means that vary less than the noise of heads would make them vary: nothing of the spread is true.
    opposite = np.array([[5.0, -5.0], [-5.0, 5.0]])[:, :, None]
    assert reliability_ratio(opposite, heads=10) == pytest.approx(2 / 10)


def test_drawn_scores_are_as_steep_as_the_scores_of_all_heads() -> None:
    """Draw what every unit is worth and heads that err about it: the slopes on either mean are the same."""
    generator = np.random.default_rng(1)
    repeats, folds, units = 3, 4, 40_000
    worth = generator.normal(size=units)
    heads = worth + 1.5 * generator.normal(size=(repeats * folds, units))
    outcome = worth + generator.normal(size=units)
    out_of_fold = heads[::folds, :, None]
    drawn = drawn_together(out_of_fold, reliability_ratio(out_of_fold, heads=repeats * folds))[:, 0]
    fresh = worth + 1.5 * generator.normal(size=(repeats * folds, units)).mean(axis=0)
    slope_of_drawn, slope_of_fresh, slope_of_plain = (
        np.polyfit(scores, outcome, 1)[0] for scores in (drawn, fresh, out_of_fold.mean(axis=0)[:, 0])
    )
    assert slope_of_drawn == pytest.approx(slope_of_fresh, abs=0.02)
    assert slope_of_plain < slope_of_fresh - 0.2
    # By the root of the ratio they are as wide.
    ratio = reliability_ratio(out_of_fold, heads=repeats * folds)
    assert drawn_together(out_of_fold, ratio**0.5).std() == pytest.approx(fresh.std(), rel=0.01)
