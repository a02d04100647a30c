"""The shipped contract tests of heads say what is broken."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from heads.base import CrossFit, OutOfFold
from heads.estimators.logistic import LogisticFamily, LogisticHead
from heads.testing import check_chance, check_family, check_head, folds_of, log_losses, make_training

GRID = LogisticFamily(strengths=(0.01, 1.0))


def test_log_losses_leave_out_rows_without_a_label():
    # Scores of the second class; probabilities 1/2, 1/(1+e^-1) and 1/(1+e^2), by hand.
    scores = np.array([0.0, 1.0, 2.0, 9.0])[:, None, None]
    losses = log_losses(scores, np.array([[0], [1], [0], [-1]]))
    assert losses == pytest.approx([np.mean([np.log(2), np.log1p(np.exp(-1)), np.log1p(np.exp(2))])])


class OtherScores(LogisticHead):
    def decision_function(self, X):
        return super().decision_function(X).astype(np.float32)


class ByCompany(LogisticHead):
    def decision_function(self, X):
        return super().decision_function(X) + 1e-9 * len(X)


class Overwrites(LogisticHead):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.C = 2 * self.C
        return self


class Unweighted(LogisticHead):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y)


class Forgets(LogisticHead):
    @classmethod
    def from_arrays(cls, arrays, params):
        return super().from_arrays(arrays, {})


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (OtherScores, r"must return float64 of shape \(240,\); found float32"),
        (ByCompany, "1 rows without the others: scores must have the same bits"),
        (Overwrites, "fit must leave the parameters alone"),
        (Unweighted, "weights of 8 for the first class must raise"),
        (Forgets, "from_arrays must restore the parameters"),
    ],
)
def test_each_breach_of_a_head_is_named(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_head(broken(C=0.3), n_classes=2)


@dataclass(frozen=True)
class _Grid(LogisticFamily):
    strengths: tuple[float, ...] = (0.01, 1.0)


class Peeks(_Grid):
    """Scores rows by heads that were fitted on all of them."""

    def out_of_fold(self, training, folds, *, seed):
        heads = self.refit(training, [self.points[-1]] * training.y.shape[1], seed=seed)
        scores = np.stack([head.decision_function(training.X) for head in heads], axis=1)
        of_point = scores.reshape(len(training.X), len(heads), -1).astype(np.float32)
        return OutOfFold(scores=np.stack([of_point] * len(self.points)))


class Mixes(_Grid):
    """Adds to each target a little of the next."""

    def out_of_fold(self, training, folds, *, seed):
        found = super().out_of_fold(training, folds, seed=seed)
        known = (training.y >= 0).mean(axis=0)
        return replace(found, scores=found.scores + np.float32(known[::-1].reshape(1, 1, -1, 1)))


class Draws(_Grid):
    """Draws without the seed."""

    _generator = np.random.default_rng(0)

    def out_of_fold(self, training, folds, *, seed):
        found = super().out_of_fold(training, folds, seed=seed)
        return replace(found, scores=found.scores + np.float32(self._generator.normal()))


class Wide(_Grid):
    def out_of_fold(self, training, folds, *, seed):
        found = super().out_of_fold(training, folds, seed=seed)
        return replace(found, scores=found.scores[..., [0, 0]])


class IgnoresTheChoice(_Grid):
    def refit(self, training, params_of_target, *, seed):
        return super().refit(training, [self.points[0]] * len(params_of_target), seed=seed)


class PeeksAtItsFold(_Grid):
    """Has the head of all rows score every fold."""

    def cross_fit(self, training, folds, params_of_target, *, seed):
        heads = [[head] * 6 for head in self.refit(training, params_of_target, seed=seed)]
        columns = [of_target[0].decision_function(training.X) for of_target in heads]
        scores = np.stack(columns, axis=1).reshape(1, len(training.X), len(heads), -1)
        return CrossFit(heads=heads, scores=np.concatenate([scores, scores]).astype(np.float32))


class Reverses(_Grid):
    """Returns the folds' heads in another order than that of their folds."""

    def cross_fit(self, training, folds, params_of_target, *, seed):
        found = super().cross_fit(training, folds, params_of_target, seed=seed)
        return replace(found, heads=[heads[::-1] for heads in found.heads])


class LacksHeads(_Grid):
    def cross_fit(self, training, folds, params_of_target, *, seed):
        found = super().cross_fit(training, folds, params_of_target, seed=seed)
        return replace(found, heads=[heads[:5] for heads in found.heads])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Peeks, "the labels of a fold must not move its own scores"),
        (Mixes, "missing labels of one target must not move another"),
        (Draws, "out-of-fold scores of the same seed"),
        (Wide, r"float32 scores of shape \(\d, 240, 2, 1\); found float32 of \(\d, 240, 2, 2\)"),
        (IgnoresTheChoice, "refit must use the chosen parameters"),
        (PeeksAtItsFold, "the labels of a fold must not move the head that scores it"),
        (Reverses, "scores of repeat 0, fold 0 must be those of the head in that place"),
        (LacksHeads, r"a head for each of 2 x 3 folds, by target; found \[5, 5\]"),
    ],
)
def test_each_breach_of_a_grid_is_named(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_family(broken(), LogisticHead, n_classes=2)


def test_a_grid_that_fits_noise_is_named():
    class Sure(_Grid):
        def out_of_fold(self, training, folds, *, seed):
            found = super().out_of_fold(training, folds, seed=seed)
            return replace(found, scores=found.scores * 40)

    with pytest.raises(AssertionError, match=r"must be within 0.05 of log loss 0.693; found"):
        check_chance(Sure(), worse_by=0.05)


def test_patients_stay_in_one_fold():
    training = make_training(n=24)
    folds = folds_of(training)
    assert {len(set(folds[training.groups == patient])) for patient in training.groups} == {1}
    assert set(folds) == {0, 1, 2}
