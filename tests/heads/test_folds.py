"""Folds keep patients whole and share every class's patients out evenly."""

from __future__ import annotations

import numpy as np
import pytest

from heads.folds import assign_folds


def patients_in_each_fold(fold, groups, of_class):
    return [len(np.unique(groups[(fold == number) & of_class])) for number in range(5)]


@pytest.mark.parametrize("seed", range(60))
def test_seven_patients_of_a_class_suffice_for_five_folds_whoever_holds_most_of_its_images(seed):
    rng = np.random.default_rng(seed)
    patients = int(rng.integers(20, 60))
    positive, negative = np.zeros(patients, int), rng.integers(1, 6, patients)
    who = rng.choice(patients, 7, replace=False)
    positive[who] = rng.integers(1, 4, 7)
    positive[who[0]] = rng.integers(10, 60)
    groups = np.repeat(np.arange(patients), positive + negative)
    pairs = zip(positive, negative, strict=True)
    y = np.concatenate([np.r_[np.ones(some, int), np.zeros(others, int)] for some, others in pairs])
    fold = assign_folds(y[:, None], groups, folds=5, n_classes=2, seed=seed)
    assert sorted(patients_in_each_fold(fold, groups, y == 1)) == [1, 1, 1, 2, 2]
    # Negatives: every patient has some.
    assert np.ptp(patients_in_each_fold(fold, groups, y == 0)) <= 2
    assert all(len(np.unique(fold[groups == group])) == 1 for group in range(patients))


def test_images_are_balanced_among_folds_that_hold_as_many_patients():
    # Twenty patients of 1 to 20 images: the ideal is 42 a fold.
    groups = np.repeat(np.arange(20), np.arange(1, 21))
    fold = assign_folds(np.zeros((210, 1), int), groups, folds=5, n_classes=2, seed=0)
    assert np.bincount(fold).min() >= 38
    assert np.bincount(fold).max() <= 46


def test_each_target_has_its_rarest_class_everywhere():
    rng = np.random.default_rng(0)
    y = (rng.random((300, 8)) < 0.04).astype(int)
    y[rng.random(y.shape) < 0.1] = -1
    groups = np.repeat(np.arange(150), 2)
    fold = assign_folds(y, groups, folds=5, n_classes=2, seed=0)
    for target in range(8):
        counts = patients_in_each_fold(fold, groups, y[:, target] == 1)
        assert min(counts) >= 1, (target, counts)
