"""Scores, the probabilities that they stand for, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from heads.scores import blended, log_odds_of


def test_log_odds_state_the_probabilities_that_they_were_made_of():
    two = np.array([[0.2, 0.8], [0.5, 0.5], [np.nan, np.nan]])
    assert log_odds_of(two)[:2, 0] == pytest.approx([np.log(4), 0.0])
    assert np.isnan(log_odds_of(two)[2]).all()
    three = np.array([[0.2, 0.3, 0.5]])
    odds = np.exp(log_odds_of(three))
    assert odds / odds.sum() == pytest.approx(three)
    assert log_odds_of(three).sum() == pytest.approx(0)


def test_a_blend_adds_the_log_odds_of_each_target_by_its_own_weights():
    log_odds = np.array([[[[1.0], [2.0]], [[3.0], [np.nan]]]])
    found = blended(log_odds, [[0.5, 0.25], [1.0, 2.0]])
    assert found[0, 0] == pytest.approx([0.5 * 1 + 0.25 * 3])
    assert np.isnan(found[0, 1]).all()
