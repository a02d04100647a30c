"""Thresholds of a grade or a graver one: by hand, in common for targets of one head, and what they decide."""

from __future__ import annotations

import numpy as np
import pytest

from heads.statistics.thresholds import AT_SENSITIVITY, at_least, grade_thresholds, gravest_reached

CLASSES = ("normal", "moderate", "severe")


def said(severe: list[float]) -> np.ndarray:
    """Probabilities in which moderate is always 0.2."""
    return np.array([[0.8 - p, 0.2, p] for p in severe])


def test_a_threshold_finds_the_wanted_share_of_a_grade_and_all_graver_ones() -> None:
    severe = [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75]
    y = np.array([0, 0, 1, 0, 1, 1, 2, 0, 2, 2])
    (found,) = grade_thresholds(y[:, None], said(severe)[:, None], CLASSES)
    # Six of moderate or graver: all but one of six are less than 90 %, so that the lowest (0.1 + 0.2) is found too.
    assert 0.25 < found["moderate"][AT_SENSITIVITY] <= 0.3
    assert 0.4 < found["severe"][AT_SENSITIVITY] <= 0.5
    assert set(found["severe"]) == {"half", "youden", "sensitivity-0.90", "specificity-0.90"}


def test_targets_of_one_head_have_their_thresholds_in_common() -> None:
    y = np.array([[0, 2], [1, 0], [2, 1], [0, -1]])
    probabilities = np.stack([said([0.1, 0.2, 0.6, 0.3]), said([0.5, 0.05, 0.3, np.nan])], axis=1)
    shared = grade_thresholds(y, probabilities, CLASSES, [[0, 1]])
    cells = np.concatenate([probabilities[:, 0], probabilities[:3, 1]])[:, None]
    (together,) = grade_thresholds(np.array([0, 1, 2, 0, 2, 0, 1])[:, None], cells, CLASSES)
    assert shared == (together, together)
    # A grade that nobody has has no threshold.
    (without,) = grade_thresholds(np.array([[0], [1]]), probabilities[:2, :1], CLASSES)
    assert list(without) == ["moderate"]


def test_the_gravest_grade_that_reaches_its_threshold_is_decided() -> None:
    probabilities = said([0.05, 0.3, 0.6])
    assert at_least(probabilities, 1) == pytest.approx([0.25, 0.5, 0.8])
    assert gravest_reached(probabilities, CLASSES, {"moderate": 0.4, "severe": 0.6}).tolist() == [0, 1, 2]
    # Severe is more than moderate, even where that one's threshold is higher.
    assert gravest_reached(probabilities, CLASSES, {"moderate": 0.9, "severe": 0.3}).tolist() == [0, 2, 2]
