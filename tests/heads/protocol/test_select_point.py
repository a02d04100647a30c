"""Folds that keep patients together, leaks that stop a probe, pooling of a study's images, thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from embedstore.errors import DataError, UsageError
from heads.folds import assign_folds, require_classes
from heads.inputs.leakage import leakage_groups, require_disjoint_splits
from heads.inputs.pooling import pool_vectors
from heads.protocol.select_point import best_points, point_losses
from heads.protocol.splits import split_units
from heads.scores import pool_scores, probabilities_from_scores
from heads.statistics.thresholds import choose_thresholds
from tests.views import make_view


def _units(seed: int = 0, patients: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), generator.integers(1, 5, patients))
    return (generator.random((len(groups), 1)) < 0.15).astype(np.int64), groups


def test_a_patient_is_in_one_fold() -> None:
    y, groups = _units()
    folds = assign_folds(y, groups, folds=5, n_classes=2, seed=0)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
    assert np.unique(folds).tolist() == [0, 1, 2, 3, 4]


def test_folds_are_as_alike_as_scikit_learns() -> None:
    y, groups = _units()
    folds = assign_folds(y, groups, folds=5, n_classes=2, seed=0)
    shares = [y[folds == fold].mean() for fold in range(5)]
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    theirs = [y[held].mean() for _, held in splitter.split(y, y[:, 0], groups)]
    assert np.ptp(shares) <= np.ptp(theirs) + 0.005
    sizes = np.bincount(folds)
    assert np.ptp(sizes) < 0.05 * len(y)


def test_every_class_of_every_target_reaches_every_fold() -> None:
    generator = np.random.default_rng(0)
    y = generator.choice([-1, 0, 1, 2], p=[0.1, 0.7, 0.15, 0.05], size=(600, 4))
    folds = assign_folds(y, np.arange(600), folds=5, n_classes=3, seed=0)
    for target in range(4):
        for k in range(3):
            counts = np.bincount(folds[y[:, target] == k], minlength=5)
            assert counts.min() >= 0.6 * counts.mean()


def test_folds_are_those_of_the_seed() -> None:
    y, groups = _units()
    first, again, other = (assign_folds(y, groups, folds=5, n_classes=2, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[0]] * 12, "every training label is 'normal'"),
        ([[-1]] * 12, "all 12 training labels are missing"),
        ([[0]] * 9 + [[1]] * 3, "class 'abnormal' has 3 of 12 training patients, fewer than the 5 folds"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(y: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        require_classes(np.array(y), np.arange(12), folds=5, task=make_view(patients=4).task)


def test_three_patients_are_too_few() -> None:
    with pytest.raises(DataError, match="of 3 training patients, fewer than the 5 folds; use fewer folds"):
        require_classes(np.array([[0], [1], [1]]), np.arange(3), folds=5, task=make_view(patients=4).task)


def test_the_point_with_the_smallest_loss_at_the_unit_wins() -> None:
    y = np.array([[0], [1], [1]])
    unit_of_row = np.array([0, 0, 1, 2])
    right = np.array([-2.0, -1.0, 2.0, 1.0])
    scores = np.stack([-right, right, 0 * right])[:, :, None, None].astype(np.float32)
    losses = point_losses(scores, y, unit_of_row)
    of_study = 1 - (1 / (1 + np.exp(2)) + 1 / (1 + np.exp(1))) / 2
    expected = -(np.log(of_study) + np.log(1 / (1 + np.exp(-2))) + np.log(1 / (1 + np.exp(-1)))) / 3
    assert losses[1, 0] == pytest.approx(expected, rel=1e-6)
    assert losses[2, 0] == pytest.approx(np.log(2))
    assert best_points(losses) == [1]


def test_patients_in_both_splits_are_refused_by_name() -> None:
    view = make_view()
    splits = view.splits.copy()
    splits[0] = "train" if splits[0] == "valid" else "valid"
    patients = view.patients.copy()
    patients[:2] = "patient-x"
    splits[:2] = ["train", "valid"]
    broken = replace(view, splits=splits, patients=patients)
    with pytest.raises(DataError, match=r"1 patients are in .*\(patient-x\)"):
        require_disjoint_splits(broken, splits == "train", splits == "valid")


def test_identical_pixels_across_splits_are_refused_with_their_pairs() -> None:
    view = make_view()
    train = np.flatnonzero(view.splits[view.unit_of_image] == "train")
    valid = np.flatnonzero(view.splits[view.unit_of_image] == "valid")
    content = view.content_sha256.copy()
    content[valid[:5]] = content[train[:5]]
    broken = replace(view, content_sha256=content)
    with pytest.raises(DataError, match=r"5 images have identical pixels .* = .* and 2 more\)"):
        require_disjoint_splits(broken, view.splits == "train", view.splits == "valid")


def test_patients_who_share_an_image_are_kept_in_one_fold() -> None:
    view = make_view(valid_share=0)
    groups = leakage_groups(view)
    assert len(np.unique(groups)) == len(np.unique(view.patients))
    first, last = 0, len(view.X) - 1
    content = view.content_sha256.copy()
    content[last] = content[first]
    linked = leakage_groups(replace(view, content_sha256=content))
    assert linked[view.unit_of_image[first]] == linked[view.unit_of_image[last]]
    assert len(np.unique(linked)) == len(np.unique(view.patients)) - 1


def test_a_class_without_a_training_patient_is_named_with_those_that_have_some() -> None:
    task = replace(make_view(patients=4).task, classes=("normal", "abnormal", "severe"))
    y = np.array([[0], [0], [1], [1], [1], [-1]])
    with pytest.raises(
        DataError, match=r"no training patient has 'severe'.*normal 2, abnormal 3, severe 0"
    ) as found:
        require_classes(y, np.arange(6), folds=5, task=task)
    assert "['normal', 'abnormal']" in str(found.value)
    assert "fewer folds" not in str(found.value)


def test_a_split_with_nothing_to_evaluate_on_is_refused() -> None:
    view = make_view()
    with pytest.raises(
        DataError, match=r"found only \['train'\]. `cross_validate=True` passes over the split"
    ):
        split_units(replace(view, splits=np.full(len(view.splits), "train")))


def test_with_a_test_split_valid_is_learned_from_and_strays_are_counted() -> None:
    view = make_view(valid_share=0)
    splits = np.array(["train", "valid", "test", ""])[np.arange(len(view.unit_ids)) % 4]
    split = split_units(replace(view, splits=splits))
    assert split.fit_names == ("train", "valid")
    assert (split.evaluated == (splits == "test")).all()
    assert split.excluded == {"unit outside the official split": int((splits == "").sum())}


def test_a_study_has_the_mean_of_its_images_probabilities() -> None:
    scores = np.array([[0.0], [2.0], [-1.0]])
    pooled = pool_scores(scores, np.array([1, 1, 0]), n_units=2)
    expected = (0.5 + 1 / (1 + np.exp(-2))) / 2
    assert probabilities_from_scores(pooled)[1, 1] == pytest.approx(expected)
    assert pooled[0, 0] == -1.0


def test_a_study_of_several_classes_has_the_mean_of_each() -> None:
    scores = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]))
    pooled = probabilities_from_scores(pool_scores(scores, np.array([0, 0]), n_units=1))
    assert pooled[0] == pytest.approx([0.4, 0.5, 0.1])


def test_saturated_images_keep_their_order_and_stay_finite() -> None:
    pooled = pool_scores(np.array([[900.0], [800.0], [-900.0], [-900.0]]), np.array([0, 1, 2, 2]), n_units=3)
    assert np.isfinite(pooled).all()
    assert pooled[0] > pooled[1] > pooled[2]


def test_vectors_are_pooled_by_mean_and_by_maximum() -> None:
    X = np.array([[1, 5], [10, 20], [3, 1]], np.float32)
    units = np.array([0, 1, 0])
    assert pool_vectors(X, units, n_units=2, pooling="mean-vector")[0].tolist() == [[2, 3], [10, 20]]
    assert pool_vectors(X, units, n_units=2, pooling="max-vector")[0].tolist() == [[3, 5], [10, 20]]
    assert pool_vectors(X, units, n_units=2, pooling="mean-probability")[0] is X


def test_a_unit_without_images_and_an_unknown_pooling_are_refused() -> None:
    X = np.zeros((2, 1), np.float32)
    with pytest.raises(UsageError, match="1 have none"):
        pool_vectors(X, np.array([0, 2]), n_units=3, pooling="mean-vector")
    with pytest.raises(UsageError, match="found 'median'"):
        pool_vectors(X, np.array([0, 1]), n_units=2, pooling="median")


def test_thresholds_are_what_the_hand_finds() -> None:
    y = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    probability = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    found = choose_thresholds(y, probability)
    assert found["half"] == 0.5
    # 0.35 finds 4 of 4 and spares 3 of 4; 0.55 finds 3 of 4 and spares 4 of 4: the first of equals.
    assert found["youden"] == pytest.approx(0.35)
    assert found["sensitivity-0.90"] == pytest.approx(0.35)
    assert found["specificity-0.90"] == pytest.approx(0.55)
