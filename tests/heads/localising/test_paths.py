"""The best path is the best of all paths, and the shifted ones are what they say."""

import itertools

import numpy as np
import pytest

from heads.localising.paths import best_path, shifted_paths
from heads.localising.spine_prior import Gaussian

STEP_MM = np.array([[0.5, -10.0], [9.0, 0.3]])  # a grid that is slightly turned
STEPS = (
    Gaussian(np.array([2.0, -14.0]), np.array([[60.0, 10.0], [10.0, 90.0]])),
    Gaussian(np.array([-5.0, -18.0]), np.array([[40.0, 0.0], [0.0, 70.0]])),
)


def score_of(tokens, scores, steps=STEPS):
    total = sum(scores[disc][tuple(token)] for disc, token in enumerate(tokens))
    for step, before, after in zip(steps, tokens[:-1], tokens[1:], strict=True):
        offset = (np.array(after) - before) @ STEP_MM - step.mean
        total -= 0.5 * offset @ np.linalg.solve(step.covariance, offset)
    return total


@pytest.mark.parametrize("seed", range(6))
def test_no_path_is_better_than_the_best(seed):
    scores = np.random.default_rng(seed).normal(0, 3, (3, 4, 3))
    found = best_path(scores, STEPS, STEP_MM)
    tokens = list(itertools.product(range(4), range(3)))
    totals = {path: score_of(path, scores) for path in itertools.product(tokens, repeat=3)}
    best = max(totals, key=totals.get)
    assert [tuple(token) for token in found.tokens] == list(best)
    assert found.score == pytest.approx(totals[best], abs=1e-9)


def test_shifted_paths_keep_all_discs_but_one():
    scores = np.random.default_rng(9).normal(0, 3, (3, 4, 3))
    path = best_path(scores, STEPS, STEP_MM)
    up, down = shifted_paths(path, scores, STEPS, STEP_MM)
    assert up.tokens[1:].tolist() == path.tokens[:-1].tolist()
    assert down.tokens[:-1].tolist() == path.tokens[1:].tolist()
    tokens = list(itertools.product(range(4), range(3)))
    for shifted, free in ((up, 0), (down, 2)):
        kept = shifted.tokens.tolist()
        others = [score_of([*kept[:free], token, *kept[free + 1 :]], scores) for token in tokens]
        assert shifted.score == pytest.approx(max(others), abs=1e-9)
        assert shifted.score <= path.score + 1e-9


def test_a_grid_that_is_smaller_than_a_spine_has_no_path():
    far = Gaussian(np.array([0.0, -400.0]), np.eye(2) * 4)
    assert best_path(np.zeros((2, 3, 3)), [far], STEP_MM) is None
