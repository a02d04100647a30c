"""Metrics of one ranking, against scikit-learn, and by hand and by all orders for those by chance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from heads.retrieval.ranking_quality import (
    average_precision,
    average_precision_by_chance,
    ndcg_at,
    ndcg_by_chance,
    precision_at,
    precision_by_chance,
)


@pytest.mark.parametrize("seed", range(5))
def test_rankings_have_the_numbers_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.integers(0, 4, 30).astype(np.float64)
    relevant = gains > 1
    # Scores that fall along the ranking.
    scores = np.arange(30, 0, -1.0)
    assert average_precision(relevant) == pytest.approx(average_precision_score(relevant, scores), abs=1e-12)
    for k in (1, 7, 30, 50):
        assert ndcg_at(gains, k) == pytest.approx(ndcg_score(gains[None], scores[None], k=k), abs=1e-12)


def test_few_candidates_and_none_that_fit() -> None:
    assert precision_at(np.array([True, False]), 10) == 0.5
    assert np.isnan(precision_at(np.zeros(0, bool), 3))
    assert np.isnan(average_precision(np.zeros(4, bool)))
    assert np.isnan(ndcg_at(np.zeros(4), 3))


@pytest.mark.parametrize("relevant", [1, 2, 4, 5])
def test_chance_is_the_mean_over_all_orders(relevant: int) -> None:
    labels = np.arange(5) < relevant
    gains = np.array([1.0, 0.5, 0.5, 0.25, 0.0])[:5] * labels
    orders = [list(order) for order in permutations(range(5))]
    found = [
        (precision_at(labels[order], 3), average_precision(labels[order]), ndcg_at(gains[order], 3))
        for order in orders
    ]
    by_chance = (
        precision_by_chance(relevant, 5),
        average_precision_by_chance(relevant, 5),
        ndcg_by_chance(gains, 3),
    )
    np.testing.assert_allclose(by_chance, np.mean(found, axis=0), atol=1e-12)
