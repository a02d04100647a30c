"""What every head must do, checked the same way for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from embedstore.errors import DataError
from heads.base import Head, HeadFamily, Training
from heads.scores import probabilities_from_scores

MISSING = -1


def make_training(
    *, n: int = 240, dim: int = 8, n_classes: int = 2, targets: int = 2, signal: float = 2.5, seed: int = 0
) -> Training:
    """Make rows of classes that overlap, two rows a patient, whose targets have nothing to do with each other."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, n_classes, (n // 2, targets)).repeat(2, axis=0)
    means = generator.normal(size=(targets, n_classes, dim))
    means *= signal / np.linalg.norm(means, axis=2, keepdims=True)
    X = generator.normal(size=(n, dim)) + sum(means[target][y[:, target]] for target in range(targets)) + 0.5
    weight = np.ones(y.shape, np.float32)
    return Training.of_rows(
        X.astype(np.float32), y, sample_weight=weight, groups=np.arange(n) // 2, n_classes=n_classes
    )


def folds_of(training: Training, folds: int = 3) -> np.ndarray:
    """Deal patients into folds in turn."""
    return training.groups % folds


def log_losses(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the log loss of (n, targets, columns) scores for each target, rows without a label left out."""
    probabilities = probabilities_from_scores(scores)
    losses = []
    for target in range(y.shape[1]):
        known = np.flatnonzero(y[:, target] != MISSING)
        losses.append(-np.log(probabilities[known, target, y[known, target]]).mean())
    return np.array(losses)


def check_head(head: Head, *, n_classes: int) -> None:
    """Assert the contract of an unfitted estimator on a small problem of `n_classes`."""
    training = make_training(n_classes=n_classes, targets=1)
    X, y = training.X, training.y[:, 0]
    before = head.get_params()
    assert type(head)(**json.loads(json.dumps(before, allow_nan=False))) is not None
    assert head.fit(X, y) is head
    assert head.get_params() == before
    scores, probabilities = head.decision_function(X), head.predict_proba(X)
    assert scores.dtype == np.float64
    assert scores.shape == ((len(X),) if n_classes == 2 else (len(X), n_classes))
    assert probabilities == pytest.approx(
        probabilities_from_scores(scores.reshape(len(X), -1)), abs=0, rel=1e-12
    )
    assert (head.predict(X) == y).mean() > 0.7
    assert head.classes_.tolist() == list(range(n_classes))
    _check_rows_stand_alone(head, X)
    _check_units_stand_alone(head, X)
    _check_arrays(head, X)
    other_labels = type(head)(**before).fit(X, y * 10 + 5)
    assert set(other_labels.predict(X)) <= {5, 15, 25}
    assert other_labels.decision_function(X).tobytes() == scores.tobytes()
    again = type(head)(**before).fit(X, y)
    assert again.decision_function(X).tobytes() == scores.tobytes()
    with pytest.raises(ValueError, match="one class"):
        type(head)(**before).fit(X, np.zeros(len(X), int))
    _check_weights(type(head)(**before), training)


def _check_rows_stand_alone(head: Head, X: np.ndarray) -> None:
    whole = head.decision_function(X)
    order = np.random.default_rng(0).permutation(len(X))
    for batch in (1, 3, 17, 64):
        rows = order[:batch]
        assert head.decision_function(X[rows]).tobytes() == whole[rows].tobytes()
    assert head.decision_function(np.repeat(X, 20, axis=0))[::20].tobytes() == whole.tobytes()


def _check_units_stand_alone(head: Head, X: np.ndarray) -> None:
    """A unit's score is its own rows' alone; one row is its own score; a shift moves it towards the rarer answer."""
    unit_of_row = np.random.default_rng(1).permutation(np.arange(len(X)) // 3)
    n_units = int(unit_of_row.max()) + 1
    whole = head.unit_scores(X, unit_of_row, n_units)
    columns = head.decision_function(X).reshape(len(X), -1)
    assert whole.dtype == np.float64
    assert whole.shape == (n_units, columns.shape[1])
    some = np.isin(unit_of_row, [1, 4])
    alone = head.unit_scores(X[some], (unit_of_row[some] == 4).astype(np.int64), 2)
    assert alone.tobytes() == whole[[1, 4]].tobytes()
    assert head.unit_scores(X, np.arange(len(X)), len(X)) == pytest.approx(columns, rel=1e-9, abs=1e-9)
    shift = np.full(columns.shape[1], 0.0)
    shift[-1] = 0.5
    moved = probabilities_from_scores(head.unit_scores(X, unit_of_row, n_units, shift=shift))
    assert (moved[:, -1] <= probabilities_from_scores(whole)[:, -1]).all()


def _check_arrays(head: Head, X: np.ndarray) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in head.to_arrays().items()}
    kept = safetensors.numpy.load(safetensors.numpy.save(arrays))
    params = json.loads(json.dumps(head.get_params(), allow_nan=False))
    again = type(head).from_arrays(kept, params)
    assert again.decision_function(X).tobytes() == head.decision_function(X).tobytes()
    assert again.classes_.tolist() == head.classes_.tolist()
    assert again.n_features_in_ == X.shape[1]
    assert json.dumps(again.get_params()) == json.dumps(head.get_params())
    for name in arrays:
        with pytest.raises(DataError, match=name):
            type(head).from_arrays({key: kept[key] for key in kept if key != name}, params)
    with pytest.raises(DataError, match="whole numbers"):
        type(head)(**head.get_params()).fit(X, np.where(head.predict(X) == 0, "a", "b")).to_arrays()


def _check_weights(head: Head, training: Training) -> None:
    """A row of weight 0 teaches nothing, and weights shift the answer towards the class they favour."""
    X, y = training.X, training.y[:, 0]
    weight = np.where(y == 0, 8.0, 1.0)
    plain = head.fit(X, y).predict_proba(X)[:, 0].mean()
    assert head.fit(X, y, weight).predict_proba(X)[:, 0].mean() > plain + 0.01
    wrong = np.concatenate([y, 1 - np.minimum(y, 1)])
    twice = np.concatenate([X, X])
    silent = np.concatenate([np.ones(len(X)), np.zeros(len(X))])
    kept = head.fit(twice, wrong, silent).decision_function(X)
    alone = head.fit(X, y).decision_function(X)
    assert kept == pytest.approx(alone, abs=1e-3)


def check_family(
    family: HeadFamily, head: type[Head], *, n_classes: int, options: Mapping[str, Any] | None = None
) -> None:
    """Assert the contract of a grid: shape, no leak, targets apart, missing labels, seeds, refit."""
    training = make_training(n_classes=n_classes)
    folds = folds_of(training)
    points = family.points
    assert json.loads(json.dumps(list(points), allow_nan=False))
    for point in points:
        assert json.dumps(head(**point).get_params(), allow_nan=False)
    found = family.out_of_fold(training, folds, seed=3)
    scores = found.scores
    assert scores.shape == (len(points), len(folds), 2, training.columns)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    again = family.out_of_fold(training, folds, seed=3)
    assert again.scores.tobytes() == scores.tobytes()
    assert again.refit_params == found.refit_params
    losses = log_losses(scores[0], training.y)
    assert (losses < np.log(n_classes)).all()
    _check_no_leak(family, training, folds, scores)
    _check_targets_apart(family, training, folds, scores)
    _check_refit(family, head, training)


def _check_no_leak(family: HeadFamily, training: Training, folds: np.ndarray, scores: np.ndarray) -> None:
    """The labels of a fold do not move its scores; nor do its vectors move the scores of others in it."""
    inside = folds == 0
    y, X = training.y.copy(), training.X.copy()
    y[inside] = 0
    flipped = family.out_of_fold(replace(training, y=y), folds, seed=3).scores
    # Probabilities, as a softmax does not see a common shift of its scores.
    before = probabilities_from_scores(scores)
    assert probabilities_from_scores(flipped)[:, inside] == pytest.approx(before[:, inside], abs=5e-3)
    one = int(np.flatnonzero(inside)[0])
    X[inside & (np.arange(len(X)) != one)] += 50
    moved = family.out_of_fold(replace(training, X=X), folds, seed=3).scores
    assert probabilities_from_scores(moved)[:, one] == pytest.approx(before[:, one], abs=5e-3)


def _check_targets_apart(
    family: HeadFamily, training: Training, folds: np.ndarray, scores: np.ndarray
) -> None:
    """Missing labels and weights of one target do not move the other, and are the same as absent rows."""
    y, weight = training.y.copy(), training.sample_weight.copy()
    y[::4, 1] = MISSING
    weight[1::4, 1] = 0
    some = family.out_of_fold(replace(training, y=y, sample_weight=weight), folds, seed=3).scores
    assert np.isfinite(some).all()
    found, before = probabilities_from_scores(some), probabilities_from_scores(scores)
    assert found[:, :, 0] == pytest.approx(before[:, :, 0], abs=5e-3)
    y[1::4, 1] = MISSING
    same = family.out_of_fold(replace(training, y=y), folds, seed=3).scores
    assert probabilities_from_scores(same) == pytest.approx(found, abs=5e-3)


def _check_refit(family: HeadFamily, head: type[Head], training: Training) -> None:
    y = training.y.copy()
    y[::4, 1] = MISSING
    training = replace(training, y=y)
    found = family.out_of_fold(training, folds_of(training), seed=3)
    last = len(family.points) - 1
    chosen = [found.params(family.points[point], point, target) for target, point in enumerate((0, last))]
    heads = family.refit(training, chosen, seed=3)
    again = family.refit(training, json.loads(json.dumps(chosen, allow_nan=False)), seed=3)
    for target, (fitted, twin, params) in enumerate(zip(heads, again, chosen, strict=True)):
        assert type(fitted) is head
        assert fitted.get_params().items() >= params.items()
        assert fitted.classes_.tolist() == list(range(training.n_classes))
        found = fitted.decision_function(training.X).reshape(len(training.X), 1, -1)
        assert twin.decision_function(training.X).tobytes() == found.tobytes()
        assert log_losses(found, y[:, [target]])[0] < np.log(training.n_classes)
        _check_arrays(fitted, training.X)


def check_chance(family: HeadFamily, *, worse_by: float) -> None:
    """Labels that have nothing to do with the vectors: no point is far above the entropy of the labels."""
    training = make_training(n=600, signal=0.0, targets=1, seed=1)
    scores = family.out_of_fold(training, folds_of(training, 5), seed=0).scores
    for of_point in scores:
        assert log_losses(of_point, training.y)[0] == pytest.approx(np.log(2), abs=worse_by)
