"""The mean of several heads: its scores, its arrays, and how a family makes its members."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import DataError
from heads.ensemble import EnsembleHead
from heads.estimators.logistic import LogisticFamily, LogisticHead
from heads.folds import partitions, repeat_seed
from heads.scores import pool_scores
from heads.testing import folds_of, make_training
from tests.heads.bag_head import NoisyOrFamily, NoisyOrHead

GRID = LogisticFamily(strengths=(0.1,))
TRAINING = make_training(n=60, n_classes=3, targets=2, signal=1.0)
FOLDS = np.stack([folds_of(TRAINING), (TRAINING.groups // 3) % 3])


def _alone(repeat: int, fold: int, target: int) -> LogisticHead:
    """Fit the member by itself."""
    outside = FOLDS[repeat] != fold
    return LogisticHead(**GRID.points[0]).fit(TRAINING.X[outside], TRAINING.y[outside, target])


def test_members_saw_all_but_their_fold_and_score_it() -> None:
    found = GRID.cross_fit(TRAINING, FOLDS, [GRID.points[0]] * 2, seed=0)
    assert found.scores.shape == (2, 60, 2, 3)
    assert [len(heads) for heads in found.heads] == [6, 6]
    for target in range(2):
        for repeat in range(2):
            for fold in range(3):
                inside, alone = FOLDS[repeat] == fold, _alone(repeat, fold, target)
                wanted = alone.decision_function(TRAINING.X)
                member = found.heads[target][3 * repeat + fold].decision_function(TRAINING.X)
                assert member == pytest.approx(wanted, abs=1e-4)
                assert found.scores[repeat, inside, target] == pytest.approx(wanted[inside], abs=1e-4)


def test_members_over_bags_score_units() -> None:
    training = make_training(n=60, targets=1)
    units = np.arange(60) // 2
    training = type(training)(**{**vars(training), "unit_of_row": units, "n_units": 30})
    found = NoisyOrFamily().cross_fit(training, folds_of(training)[None], [{"strength": 0.25}], seed=0)
    assert found.scores.shape == (1, 30, 1, 1)
    for fold, head in enumerate(found.heads[0]):
        inside = np.flatnonzero(training.groups[::2] % 3 == fold)
        assert isinstance(head, NoisyOrHead)
        rows = np.isin(units, inside)
        wanted = head.unit_scores(training.X[rows], np.repeat(np.arange(len(inside)), 2), len(inside))
        assert found.scores[0, inside, 0] == pytest.approx(wanted, rel=1e-5)


def test_a_score_is_the_mean_of_the_members_scores_of_rows_and_of_units() -> None:
    members = GRID.cross_fit(TRAINING, FOLDS, [GRID.points[0]] * 2, seed=0).heads[0]
    ensemble = EnsembleHead(members)
    X, units = TRAINING.X, np.arange(60) % 7
    rows = np.stack([member.decision_function(X) for member in members])
    assert ensemble.decision_function(X) == pytest.approx(rows.mean(axis=0), abs=1e-12)
    shift = np.array([0.0, 0.3, -0.2])
    pooled = np.stack([pool_scores(of_member - shift, units, n_units=7) for of_member in rows])
    assert ensemble.unit_scores(X, units, 7, shift=shift) == pytest.approx(pooled.mean(axis=0), abs=1e-12)
    assert (ensemble.predict(X) == ensemble.predict_proba(X).argmax(axis=1)).all()
    alone = np.concatenate([ensemble.decision_function(X[[row]]) for row in range(60)])
    assert alone.tobytes() == ensemble.decision_function(X).tobytes()


def test_it_comes_back_from_its_arrays_and_parameters() -> None:
    members = [LogisticHead(C=C).fit(TRAINING.X, TRAINING.y[:, 0]) for C in (0.1, 1.0)]
    ensemble = EnsembleHead(members)
    assert ensemble.own_params() == [{"C": 0.1}, {"C": 1.0}]
    assert "C" not in ensemble.get_params()
    assert ensemble.needs == LogisticHead.needs
    kept = (ensemble.to_arrays(), ensemble.get_params(), ensemble.own_params())
    again = EnsembleHead.from_arrays(LogisticHead, *kept)
    assert again.decision_function(TRAINING.X).tobytes() == ensemble.decision_function(TRAINING.X).tobytes()
    assert [member.get_params() for member in again.members] == [member.get_params() for member in members]
    with pytest.raises(DataError, match=r"an ensemble of 1 heads has no array '1\."):
        EnsembleHead.from_arrays(LogisticHead, kept[0], kept[1], kept[2][:1])


def test_the_first_partition_is_that_of_selection_and_seeds_differ() -> None:
    y, groups = TRAINING.y, TRAINING.groups
    found = partitions(y, groups, folds=3, n_classes=3, seed=5, repeats=3)
    alone = partitions(y, groups, folds=3, n_classes=3, seed=5, repeats=1)
    assert found[:1].tolist() == alone.tolist()
    assert (found[0] != found[1]).any()
    assert (found[1] != found[2]).any()
    assert len({repeat_seed(5, repeat, fold) for repeat in range(4) for fold in range(5)}) == 20
    assert max(repeat_seed(5, repeat) for repeat in range(50)) < 2**31
