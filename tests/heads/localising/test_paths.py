"""The best path is the best of all paths, and the shifted ones are what they say."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from heads.localising import paths
from heads.localising.paths import best_path, settled, shifted_paths
from heads.localising.spine_prior import Gaussian

# Tokens 10 mm high and 9 mm wide; each points to a place beside its middle.
PLACES = np.stack(np.meshgrid(np.arange(4) * -10.0, np.arange(3) * 9.0, indexing="ij")[::-1], axis=-1)
PLACES = PLACES + np.random.default_rng(0).normal(0, 3, PLACES.shape)
STEPS = (
    Gaussian(np.array([2.0, -14.0]), np.array([[60.0, 10.0], [10.0, 90.0]])),
    Gaussian(np.array([-5.0, -18.0]), np.array([[40.0, 0.0], [0.0, 70.0]])),
)


def score_of(tokens, scores, steps=STEPS):
    total = sum(scores[disc][tuple(token)] for disc, token in enumerate(tokens))
    for step, before, after in zip(steps, tokens[:-1], tokens[1:], strict=True):
        offset = PLACES[tuple(after)] - PLACES[tuple(before)] - step.mean
        total -= 0.5 * offset @ np.linalg.solve(step.covariance, offset)
    return total


@pytest.mark.parametrize("seed", range(6))
def test_no_path_is_better_than_the_best(seed):
    scores = np.random.default_rng(seed).normal(0, 3, (3, 4, 3))
    found = best_path(scores, PLACES, STEPS)
    tokens = list(itertools.product(range(4), range(3)))
    totals = {path: score_of(path, scores) for path in itertools.product(tokens, repeat=3)}
    best = max(totals, key=totals.get)
    assert [tuple(token) for token in found.tokens] == list(best)
    assert found.score == pytest.approx(totals[best], abs=1e-9)


def test_shifted_paths_keep_all_discs_but_one():
    scores = np.random.default_rng(9).normal(0, 3, (3, 4, 3))
    path = best_path(scores, PLACES, STEPS)
    up, down = shifted_paths(path, scores, PLACES, STEPS)
    assert up.tokens[1:].tolist() == path.tokens[:-1].tolist()
    assert down.tokens[:-1].tolist() == path.tokens[1:].tolist()
    tokens = list(itertools.product(range(4), range(3)))
    for shifted, free in ((up, 0), (down, 2)):
        kept = shifted.tokens.tolist()
        others = [score_of([*kept[:free], token, *kept[free + 1 :]], scores) for token in tokens]
        assert shifted.score == pytest.approx(max(others), abs=1e-9)
        assert shifted.score <= path.score + 1e-9


def test_of_large_grids_the_best_tokens_are_tried(monkeypatch):
    scores = np.random.default_rng(3).normal(0, 30, (3, 4, 3))
    whole = best_path(scores, PLACES, STEPS)
    monkeypatch.setattr(paths, "MOST_TOKENS", 8)
    few = best_path(scores, PLACES, STEPS)
    assert few.tokens.tolist() == whole.tokens.tolist()
    monkeypatch.setattr(paths, "MOST_TOKENS", 1)
    alone = best_path(scores, PLACES, STEPS)
    assert [tuple(token) for token in alone.tokens] == [
        tuple(int(i) for i in np.unravel_index(own.argmax(), own.shape)) for own in scores
    ]


def test_settled_places_are_the_mode_of_the_joint_density():
    """Found once more by minimising it numerically."""
    seen = np.array([[1.0, 30.0], [6.0, 20.0], [-2.0, -4.0]])

    def cost(flat):
        places = flat.reshape(3, 2)
        total = ((places - seen) ** 2).sum() / (2 * 3.0**2)
        for step, before, after in zip(STEPS, places[:-1], places[1:], strict=True):
            offset = after - before - step.mean
            total += 0.5 * offset @ np.linalg.solve(step.covariance, offset)
        return total

    expected = minimize(cost, seen.ravel(), tol=1e-12).x.reshape(3, 2)
    np.testing.assert_allclose(settled(seen, STEPS, 3.0), expected, atol=1e-4)


def test_places_that_lie_as_discs_do_stay():
    seen = np.cumsum([[5.0, 60.0], STEPS[0].mean, STEPS[1].mean], axis=0)
    np.testing.assert_allclose(settled(seen, STEPS, 2.0), seen)
