"""Leaving the least sure answers out: by hand, with ties, and with draws of patients."""

from __future__ import annotations

import numpy as np
import pytest

from heads.statistics.abstention import SHARES, abstention_curve
from heads.statistics.bootstrap import draw_patients


def _two(probability: list[float]) -> np.ndarray:
    return np.column_stack([1 - np.array(probability), probability])


def test_the_surest_are_answered_first() -> None:
    # From the surest: right, right, wrong, right, wrong.
    probabilities = _two([0.99, 0.05, 0.9, 0.7, 0.45])
    y = np.array([1, 0, 0, 1, 1])
    draws = draw_patients(np.array(list("abcde")), draws=50, seed=0)
    curve = abstention_curve(y, probabilities, draws, shares=(1.0, 0.8, 0.6, 0.4))
    assert [entry.accuracy.value for entry in curve] == pytest.approx([3 / 5, 3 / 4, 2 / 3, 1])
    assert [entry.share for entry in curve] == pytest.approx([1, 0.8, 0.6, 0.4])
    assert [entry.confidence for entry in curve] == pytest.approx([0.55, 0.7, 0.9, 0.95])
    assert [entry.accuracy.n for entry in curve] == [5, 4, 3, 2]


def test_equal_confidences_are_never_parted() -> None:
    draws = draw_patients(np.arange(10).astype(str), draws=5, seed=0)
    (entry,) = abstention_curve(np.zeros(10, np.int64), _two([0.2] * 10), draws, shares=(0.3,))
    assert entry.share == 1
    assert entry.accuracy.value == 1


def test_right_probabilities_grow_more_often_right_as_shares_fall() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random(20_000)
    y = (generator.random(20_000) < probability).astype(np.int64)
    draws = draw_patients(np.array([f"p{row // 2}" for row in range(20_000)]), draws=30, seed=0)
    curve = abstention_curve(y, _two(probability.tolist()), draws)
    for share, entry in zip(SHARES, curve, strict=True):
        # Confidence is uniform from 0.5 to 1, so the surest share has the mean of its upper end.
        assert entry.accuracy.value == pytest.approx(1 - share / 4, abs=0.015)
        assert entry.accuracy.low <= entry.accuracy.value <= entry.accuracy.high
    assert set(curve[0].to_json()) == {"share", "confidence", "accuracy"}
