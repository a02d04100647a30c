"""Distances in millimetres, by hand and against NumPy."""

import numpy as np
import pytest

from embedstore.errors import DataError
from heads.localising.spine_prior import Gaussian, SpinePrior, learn_prior, point_array
from tests.heads.localising.spines import FORAMEN_MM, oracle_rows, source_of, spine


def arrays(studies=60, seed=1):
    source = source_of(0)
    chance = np.random.default_rng(seed)
    canals = [spine(chance) for _ in range(studies)]
    for number, canal in enumerate(canals):
        source.points += oracle_rows(f"s{number}", canal)
    names = [f"s{number}" for number in range(studies)]
    return point_array(source.oracle, names), np.stack(canals)


def test_points_stand_by_study_structure_and_level():
    points, canals = arrays(9)
    assert points.shape == (9, 5, 5, 3)
    np.testing.assert_array_equal(points[:, 0], canals)
    np.testing.assert_allclose(points[:, 1], canals + FORAMEN_MM)


def test_steps_are_means_and_covariances_of_neighbours_in_millimetres():
    points, canals = arrays()
    prior = learn_prior(points, np.zeros((60, 3)))
    steps = np.diff(canals, axis=1)[..., 1:]
    for level, entry in enumerate(prior.steps):
        np.testing.assert_allclose(entry.mean, steps[:, level].mean(axis=0))
        apart = steps - steps.mean(axis=0)
        pooled = np.einsum("nki,nkj->ij", apart, apart) / (60 * 4)
        own = np.einsum("ni,nj->ij", apart[:, level], apart[:, level])
        np.testing.assert_allclose(entry.covariance, (own + 10 * pooled) / 70 + 4 * np.eye(2))
    assert prior.steps[0].mean[1] == pytest.approx(-34, abs=1)
    np.testing.assert_allclose(prior.offsets["left_foramen"][2].mean, FORAMEN_MM)
    np.testing.assert_allclose(prior.offsets["right_foramen"][2].mean, FORAMEN_MM * [-1, 1, 1])
    np.testing.assert_allclose(prior.from_middle[3].mean, canals[:, 3].mean(axis=0))


def test_missing_points_are_no_samples():
    points, canals = arrays()
    points[:30, 0, 2] = np.nan
    prior = learn_prior(points, np.zeros((60, 3)))
    steps = np.diff(canals, axis=1)[30:, 1, 1:]
    np.testing.assert_allclose(prior.steps[1].mean, steps.mean(axis=0))


def test_without_foramina_they_are_not_looked_for():
    points, _ = arrays(20)
    points[:, 1:] = np.nan
    prior = learn_prior(points, np.zeros((20, 3)))
    assert not prior.offsets
    assert prior.foramen_steps == prior.steps


def test_the_penalty_is_half_the_squared_mahalanobis_distance():
    entry = Gaussian(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    assert entry.penalty(np.array([[1.0, 2.0], [3.0, 2.0], [3.0, 5.0]])).tolist() == [0, 0.5, 1.0]


def test_a_prior_comes_back_from_json():
    points, _ = arrays(10)
    prior = learn_prior(points, np.zeros((10, 3)))
    assert SpinePrior.from_json(prior.to_json()).to_json() == prior.to_json()


def test_too_few_spines_are_refused():
    points, _ = arrays(3)
    with pytest.raises(DataError, match=r"needs 4 studies .* found 3"):
        learn_prior(points, np.zeros((3, 3)))
