"""Nearest neighbours against scikit-learn, a scan in full and cases worked by hand."""

from __future__ import annotations

import warnings
from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.errors import DataError, UsageError
from heads.estimators.neighbors import NeighborsFamily, NeighborsHead
from heads.solvers.neighbor_search import Gallery, unit_vectors
from heads.testing import (
    MISSING,
    check_chance,
    check_family,
    check_head,
    folds_of,
    make_training,
)

GRID = NeighborsFamily(ks=(5, 20, 500), temperatures=(0.07, 1.0))
WEIGHTS_ARE_NOT_COPIES = {
    "check_sample_weight_equivalence_on_dense_data": "k counts rows: w copies of a row are w of the k neighbours"
}


@parametrize_with_checks(
    [NeighborsHead(), NeighborsHead(k=3, temperature=1.0)],
    expected_failed_checks=lambda head: WEIGHTS_ARE_NOT_COPIES,
)
def test_the_head_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("k", [7, 1000])
def test_the_head_keeps_the_contract(n_classes: int, k: int) -> None:
    check_head(NeighborsHead(k=k, temperature=0.05), n_classes=n_classes)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_grid_keeps_the_contract(n_classes: int) -> None:
    check_family(GRID, NeighborsHead, n_classes=n_classes)


def test_labels_without_signal_give_chance() -> None:
    check_chance(NeighborsFamily(ks=(50, 200), temperatures=(0.2, 1.0)), worse_by=0.05)


def test_a_case_worked_by_hand() -> None:
    # Cosines to (1, 0): 1, 0.8, 0.6, 0; the third neighbour of k=3 is the last to vote.
    X = np.array([[2.0, 0.0], [0.8, 0.6], [0.6, -0.8], [0.0, 1.0]])
    y = np.array([0, 1, 1, 0])
    head = NeighborsHead(k=3, temperature=0.5, smoothing=2.0).fit(X, y)
    votes = np.exp(np.array([1.0, 0.8, 0.6]) / 0.5)
    effective = votes.sum() ** 2 / (votes**2).sum()
    expected = (effective * votes[1:].sum() / votes.sum() + 2.0 * 0.5) / (effective + 2.0)
    # Half precision of 0.6 and 0.8.
    assert head.predict_proba([[5.0, 0.0]])[0, 1] == pytest.approx(expected, abs=3e-4)


def test_one_neighbour_is_drawn_towards_the_class_frequencies() -> None:
    X = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
    head = NeighborsHead(k=1, smoothing=1.0).fit(X, [1, 0, 0, 0])
    # One vote for class 1 and one neighbour's worth of 3:1.
    assert head.predict_proba([[1.0, 0.0]])[0] == pytest.approx([0.375, 0.625])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_votes_are_scikit_learns(n_classes: int) -> None:
    training = make_training(n_classes=n_classes, targets=1)
    X, y = training.X, training.y[:, 0]
    head = NeighborsHead(k=15, temperature=0.1, smoothing=1e-9).fit(X[:160], y[:160])
    theirs = KNeighborsClassifier(
        15, metric="cosine", algorithm="brute", weights=lambda distances: np.exp(-distances / 0.1)
    ).fit(X[:160], y[:160])
    assert head.predict_proba(X[160:]) == pytest.approx(theirs.predict_proba(X[160:]), abs=5e-3)


def test_the_whole_grid_is_each_point_alone() -> None:
    training = make_training(n_classes=3)
    folds = folds_of(training)
    scores = GRID.out_of_fold(training, folds, seed=0).scores
    for index, point in enumerate(GRID.points):
        for target in range(2):
            inside = folds != 2
            alone = NeighborsHead(**point).fit(training.X[inside], training.y[inside, target])
            expected = alone.decision_function(training.X[~inside])
            assert scores[index, ~inside, target] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("missing", [0.1, 0.8], ids=["few", "most"])
def test_a_target_with_missing_labels_is_scored_as_if_it_were_alone(missing: float) -> None:
    """Targets share one search; k counts the neighbours that have a label."""
    training = make_training(n=400, n_classes=3)
    y = training.y.copy()
    y[np.random.default_rng(0).random(400) < missing, 1] = MISSING
    folds = folds_of(training)
    grid = NeighborsFamily(ks=(3, 20, 60), temperatures=(0.07, 1.0))
    scores = grid.out_of_fold(replace(training, y=y), folds, seed=0).scores
    assert scores[:, :, 0] == pytest.approx(
        grid.out_of_fold(training, folds, seed=0).scores[:, :, 0], abs=1e-6
    )
    for index, point in enumerate(grid.points):
        inside = (folds != 2) & (y[:, 1] != MISSING)
        alone = NeighborsHead(**point).fit(training.X[inside], y[inside, 1])
        expected = alone.decision_function(training.X[folds == 2])
        assert scores[index, folds == 2, 1] == pytest.approx(expected, abs=1e-3)


def test_a_fold_is_searched_as_faiss_searches_it() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(3000, 64)).astype(np.float32)
    gallery = Gallery(unit_vectors(X), np.zeros(3000, np.int64))
    rows, cosines = gallery.search(X[:200] + 0.3, 25, outside=np.ones(200, np.int64))
    queries = (X[:200] + 0.3) / np.linalg.norm(X[:200] + 0.3, axis=1, keepdims=True)
    similar, found = faiss.knn(
        queries, gallery.vectors.astype(np.float32), 25, metric=faiss.METRIC_INNER_PRODUCT
    )
    assert cosines == pytest.approx(similar, abs=1e-6)
    assert (rows == found).mean() > 0.999


def test_no_row_of_the_same_group_votes_even_in_another_fold() -> None:
    """Twins of one patient lie in different folds; their labels, which are the same, must not show."""
    generator = np.random.default_rng(0)
    training = make_training(n=200, signal=0.0, targets=1)
    X = np.repeat(generator.normal(size=(100, 8)), 2, axis=0).astype(np.float32)
    twins = replace(training, X=X)
    grid = NeighborsFamily(ks=(1, 400), temperatures=(0.07,))
    scores = grid.out_of_fold(twins, np.arange(200) % 2, seed=0).scores
    nearest = (scores[0, :, 0, 0] > 0) == (training.y[:, 0] == 1)
    assert 0.3 < nearest.mean() < 0.7
    apart = grid.out_of_fold(replace(twins, groups=np.arange(200)), np.arange(200) % 2, seed=0).scores
    assert ((apart[0, :, 0, 0] > 0) == (training.y[:, 0] == 1)).all()


def test_a_row_whose_group_is_everybody_gets_the_class_frequencies() -> None:
    training = make_training(n=40, targets=1)
    training.y[:] = (np.arange(40) % 4 == 0)[:, None]
    one = replace(training, groups=np.zeros(40, np.int64))
    scores = GRID.out_of_fold(one, np.arange(40) % 2, seed=0).scores
    outside = [np.mean(training.y[np.arange(40) % 2 != fold]) for fold in (0, 1)]
    for fold in (0, 1):
        share = max(outside[fold], 1e-6)
        expected = np.log(share) - np.log(1 - outside[fold])
        assert scores[:, np.arange(40) % 2 == fold] == pytest.approx(expected, abs=1e-5)


def test_search_is_exact_where_cosines_nearly_tie() -> None:
    """Hundreds of copies with steps below float32's rounding: only exact sums order them."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=64)
    X = np.repeat(base[None], 600, axis=0)
    X[300:] += generator.normal(size=(300, 64)) * 1e-3
    gallery = Gallery(unit_vectors(X.astype(np.float32)))
    queries = X[::7].astype(np.float32)
    rows, cosines = gallery.search(queries, 40)
    unit = queries.astype(np.longdouble)
    unit = np.rint(unit / np.sqrt((unit**2).sum(1, keepdims=True)) * 2**24) / 2**24
    exact = unit @ gallery.vectors.astype(np.longdouble).T
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :40]
    assert (rows == expected).all()
    assert cosines == pytest.approx(np.take_along_axis(exact, expected, 1).astype(float), abs=1e-14)


def test_a_fold_of_near_duplicates_is_searched_exactly_on_any_number_of_cores() -> None:
    generator = np.random.default_rng(0)
    X = (generator.normal(size=64) + generator.normal(size=(700, 64)) * 1e-3).astype(np.float32)
    X[300:400] = X[0]
    groups, folds = np.arange(700) // 2, np.arange(700) % 5
    gallery = Gallery(unit_vectors(X), groups)
    among, asked = np.flatnonzero(folds != 1), np.flatnonzero(folds == 1)
    unit = X[asked].astype(np.longdouble)
    unit = np.rint(unit / np.sqrt((unit**2).sum(1, keepdims=True)) * 2**24) / 2**24
    exact = unit @ gallery.vectors.astype(np.longdouble).T
    exact[(folds == 1)[None] | (groups == groups[asked][:, None])] = -2
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :120]
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            rows, cosines = gallery.search(X[asked], 120, among=among, outside=groups[asked])
            assert (rows == expected).all()
            assert (cosines == np.take_along_axis(exact, expected, 1).astype(float)).all()
    finally:
        torch.set_num_threads(threads)


def test_vectors_that_are_all_alike_state_the_prevalence_in_every_batch() -> None:
    X, y = np.ones((300, 4)), np.arange(300) % 3 == 0
    head = NeighborsHead(k=300, temperature=0.07).fit(X, y.astype(int))
    assert head.predict_proba(X[:2])[:, 1] == pytest.approx(1 / 3)
    few = NeighborsHead(k=30).fit(X, y.astype(int))
    assert few.decision_function(X[:1]).tobytes() == few.decision_function(X)[:1].tobytes()


def test_missing_labels_are_absent_rows() -> None:
    training = make_training()
    y = training.y.copy()
    y[::3, 1] = MISSING
    heads = GRID.refit(replace(training, y=y), [GRID.points[0]] * 2, seed=0)
    known = y[:, 1] != MISSING
    alone = NeighborsHead(**GRID.points[0]).fit(training.X[known], y[known, 1])
    assert heads[1].decision_function(training.X).tobytes() == alone.decision_function(training.X).tobytes()
    assert len(heads[0].vectors_) == len(y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k must be 1 or more; found 0"),
        ({"temperature": 0.0}, "above 0; found 0.0, 1.0"),
        ({"smoothing": 0.0}, "above 0; found 0.07, 0.0"),
    ],
)
def test_a_wrong_parameter_is_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NeighborsHead(**wrong).fit(np.eye(4), [0, 1, 0, 1])


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    arrays = NeighborsHead().fit(np.eye(4), [0, 1, 0, 1]).to_arrays()
    with pytest.raises(DataError, match="a label and a weight for each vector"):
        NeighborsHead.from_arrays(arrays | {"labels": arrays["labels"][:2]}, {})
    with pytest.raises(DataError, match="labels up to 7"):
        NeighborsHead.from_arrays(arrays | {"labels": arrays["labels"] + 6}, {})


def test_a_zero_vector_has_an_answer() -> None:
    head = NeighborsHead(k=2).fit(np.eye(4), [0, 1, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(head.decision_function(np.zeros((1, 4)))).all()
