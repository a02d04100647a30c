"""Points are made of tokens that agree with the path's own: a neighbour that speaks of the next disc is not heard."""

from types import SimpleNamespace

import numpy as np
import pytest

from heads.localising.find_levels import _Read, _refined
from heads.localising.network import Maps
from heads.localising.paths import Path
from heads.localising.spine_prior import Gaussian

TOKEN_MM = 20.0
STEP = Gaussian(np.array([0.0, -40.0]), 9.0 * np.eye(2))


def read_of(z_mm):
    """A slice of one column of tokens that say discs at these heights."""
    said = np.zeros((1, len(z_mm), 1, 3))
    said[0, :, 0, 2] = z_mm
    flat = np.zeros(said.shape[:3])
    grid = SimpleNamespace(planes=SimpleNamespace(spacings_mm=np.full((1, 2), TOKEN_MM)))
    return _Read(grid, Maps(flat, np.zeros((5, *flat.shape)), np.zeros((*flat.shape, 2))), said)


def test_a_long_spine_is_not_drawn_together_by_tokens_between_its_discs():
    # Every token is as sure as every other. Heard alike, both points would be the mean of all three, -20 mm.
    read = read_of([0.0, -40.0, -40.0])
    points = _refined(read, np.zeros((2, 1, 3, 1)), Path(np.array([[0, 0], [2, 0]]), 0.0), [STEP])
    np.testing.assert_allclose(points[:, 2], [0.0, -40.0], atol=1e-3)


def test_tokens_that_agree_are_averaged_by_how_near_they_say_it():
    # Gaussian shares at 0 and at 8 mm, 0.4 tokens of 20 mm apart: 1 and exp(-1/2).
    read = read_of([0.0, -8.0, -400.0])
    points = _refined(read, np.zeros((1, 1, 3, 1)), Path(np.array([[0, 0]]), 0.0), [])
    assert points[0, 2] == pytest.approx(-8 * np.exp(-0.5) / (1 + np.exp(-0.5)), abs=1e-6)
