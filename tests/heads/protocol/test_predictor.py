"""Targets that no image speaks for, in whatever company."""

import numpy as np

from heads.base import HeadDefaults
from heads.protocol.predictor import Predictor


class OfSums(HeadDefaults):
    """Scores of three classes: multiples of a row's first number. Refuses to be asked about nothing."""

    def unit_scores(self, X, unit_of_row, n_units, *, shift=None):
        assert len(X)
        sums = np.bincount(unit_of_row, weights=X[:, 0], minlength=n_units)
        return sums[:, None] * np.arange(3.0)

    def image_weights(self, X, unit_of_row, n_units):
        assert len(X)
        return np.ones(len(X))


def predictor(targets):
    return Predictor(
        heads=[OfSums()] * targets,
        calibrators=[],
        pooling="mean-probability",
        training_weights=((1.0,) * 3,) * targets,
    )


def test_a_target_without_an_image_in_any_unit_has_no_score_and_no_weights():
    X, units = np.array([[1.0], [2.0], [4.0]], np.float32), np.array([0, 0, 1])
    mask = np.array([[True, False], [True, False], [False, False]])
    scores = predictor(2).scores(X, units, n_units=2, image_of_target=mask)
    np.testing.assert_array_equal(scores[0, 0], [0.0, 3.0, 6.0])
    assert np.isnan(scores[1]).all()
    assert np.isnan(scores[:, 1]).all()
    first, second = predictor(2).image_weights(X, units, image_of_target=mask)
    np.testing.assert_array_equal(first, [1.0, 1.0, 0.0])
    assert second is None
    nothing = predictor(2).scores(X, units, n_units=2, image_of_target=np.zeros((3, 2), bool))
    assert nothing.shape == (2, 2, 3)
    assert np.isnan(nothing).all()
