"""Inverse power laws against laws that are known, and against SciPy's non-negative least squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from heads.intervals.power_law import EXPONENTS, fit_power_law, sampling_variance

SIZES = np.array([64, 128, 256, 500])


def test_a_law_without_noise_is_found_again() -> None:
    errors = 0.1 + 2.0 * SIZES[None, :] ** -0.5
    law = fit_power_law(SIZES, errors)
    assert law.floor[0] == pytest.approx(0.1, abs=1e-9)
    assert law.scale[0] == pytest.approx(2.0, abs=1e-8)
    assert law.exponent[0] == pytest.approx(0.5)
    assert law.error(10_000)[0] == pytest.approx(0.12)


def test_every_draw_has_the_least_squares_of_its_own() -> None:
    generator = np.random.default_rng(0)
    # Some fall, some rise, some start below zero: every edge of what is allowed.
    slopes = generator.normal(0, 1, (40, 1))
    errors = (
        0.05 + slopes * SIZES ** -generator.uniform(0.2, 1.4, (40, 1)) + generator.normal(0, 0.02, (40, 4))
    )
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    law = fit_power_law(SIZES, errors, weights)
    root = np.sqrt(weights / weights.sum())
    for draw, row in enumerate(errors):
        best = min(
            nnls(root[:, None] * np.column_stack([np.ones(4), (SIZES / 64.0) ** -c]), root * row)[1]
            for c in EXPONENTS
        )
        said = law.floor[draw] + law.scale[draw] * SIZES ** -law.exponent[draw]
        assert np.linalg.norm(root * (said - row)) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_an_error_that_does_not_fall_stays_where_it_is() -> None:
    law = fit_power_law(SIZES, np.array([[0.4, 0.41, 0.42, 0.43]]))
    assert law.error(2000)[0] == pytest.approx(0.415)


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(ValueError, match="3 sizes or more; found 2"):
        fit_power_law(SIZES[:2], np.ones((1, 2)))


def test_repeats_that_share_patients_tell_how_much_new_ones_would_differ() -> None:
    # A metric that is the mean of its patients: over new ones its variance is 9 / n, whatever repeats share.
    generator = np.random.default_rng(4)
    found = []
    for _ in range(300):
        there = generator.normal(0, 3, 200)
        repeats = [
            [float(generator.choice(there, n, replace=False).mean()) for _ in range(5)]
            for n in (50, 100, 150)
        ]
        found.append(sampling_variance(np.array([50, 100, 150, 200]), [*repeats, [float(there.mean())]]))
    assert np.mean(found) == pytest.approx(9, rel=0.06)
    assert sampling_variance(np.array([50, 200]), [[0.7], [0.8]]) == 0
