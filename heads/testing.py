"""Contract tests for heads of any package; those of encoders and data sets are in `embedstore.testing`.

Each function raises AssertionError with what was broken, so that it serves under pytest, unittest or alone. A head
is a scikit-learn classifier too: ``sklearn.utils.estimator_checks.parametrize_with_checks`` holds that part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from embedstore.errors import DataError
from embedstore.view import MISSING
from heads.base import Head, HeadFamily, Training
from heads.contracts import (
    SAME_PROBABILITY,
    SEED,
    check_cross_fit,
    require,
    require_close,
    require_raises,
    require_same,
)
from heads.scores import Floats, probabilities_from_scores

Rows = npt.NDArray[np.float32]

_BATCHES = (1, 3, 17, 64)


def make_training(
    *, n: int = 240, dim: int = 8, n_classes: int = 2, targets: int = 2, signal: float = 2.5, seed: int = 0
) -> Training:
    """Make rows of classes that overlap, two rows a patient, whose targets have nothing to do with each other.

    Parameters
    ----------
    n, dim
        Rows and length of a vector.
    n_classes, targets
        Of the task.
    signal
        Length of each class's mean, in standard deviations of a feature.
    seed
        Of everything that is drawn.
    """
    generator = np.random.default_rng(seed)
    y = generator.integers(0, n_classes, (n // 2, targets)).repeat(2, axis=0)
    means = generator.normal(size=(targets, n_classes, dim))
    means *= signal / np.linalg.norm(means, axis=2, keepdims=True)
    X = generator.normal(size=(n, dim)) + sum(means[target][y[:, target]] for target in range(targets)) + 0.5
    weight = np.ones(y.shape, np.float32)
    return Training.of_rows(
        X.astype(np.float32), y, sample_weight=weight, groups=np.arange(n) // 2, n_classes=n_classes
    )


def folds_of(training: Training, folds: int = 3) -> npt.NDArray[np.int64]:
    """Deal patients into folds in turn."""
    return np.asarray(training.groups % folds, np.int64)


def log_losses(scores: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> Floats:
    """Return the log loss of (n, targets, columns) scores for each target, rows without a label left out."""
    probabilities = probabilities_from_scores(scores)
    losses = []
    for target in range(y.shape[1]):
        known = np.flatnonzero(y[:, target] != MISSING)
        losses.append(-np.log(probabilities[known, target, y[known, target]]).mean())
    return np.array(losses)


def check_head(head: Head, *, n_classes: int) -> None:
    """Check that an estimator keeps its contract (`heads.base.Head`) on a small problem.

    Parameters are plain JSON values; scores are logits whose bits depend on their row alone, the same at every
    fit; what was learned comes back from plain arrays; weights count.

    Parameters
    ----------
    head
        Not fitted yet.
    n_classes
        Number of classes of the problem: check 2 and 3.

    Raises
    ------
    AssertionError
        With what was broken.
    """
    training = make_training(n_classes=n_classes, targets=1)
    X, y = training.X, training.y[:, 0]
    before = head.get_params()
    make = _maker(head, before)
    require(head.fit(X, y) is head, "fit must return the head itself")
    require(
        head.get_params() == before,
        f"fit must leave the parameters alone; {before} became {head.get_params()}",
    )
    scores = head.decision_function(X)
    shape = (len(X),) if n_classes == 2 else (len(X), n_classes)
    require(
        scores.shape == shape and scores.dtype == np.float64,
        f"decision_function must return float64 of shape {shape}; found {scores.dtype} of {scores.shape}",
    )
    np.testing.assert_allclose(
        head.predict_proba(X),
        probabilities_from_scores(scores.reshape(len(X), -1)),
        rtol=1e-12,
        err_msg="predict_proba must be the softmax of the scores (heads.scores.probabilities_from_scores)",
    )
    right = float((head.predict(X) == y).mean())
    require(right > 0.7, f"more than 70 % of an easy problem must be predicted right; found {right:.0%}")
    require(
        head.classes_.tolist() == list(range(n_classes)),
        f"classes_ must be the labels; found {head.classes_}",
    )
    _check_rows_stand_alone(head, X)
    hidden = head.hidden_vectors(X)
    if hidden is not None:
        require(hidden.shape[0] == len(X), "hidden_vectors must return None, or a vector of each row")
        require_same(
            np.asarray(head.hidden_vectors(X[3:7])), hidden[3:7], "hidden vectors of some rows alone"
        )
    _check_units_stand_alone(head, X)
    _check_arrays(head, X)
    other = make().fit(X, y * 10 + 5)
    strangers = set(other.predict(X).tolist()) - {5, 15, 25}
    require(not strangers, f"predict must return labels as they were given; found {strangers}")
    require_same(other.decision_function(X), scores, "with other names for the classes")
    require_same(make().fit(X, y).decision_function(X), scores, "fitted again with the same parameters")
    require_raises(ValueError, "one class", lambda: make().fit(X, np.zeros(len(X), int)), "fit on one class")
    _check_weights(make(), training)


def _maker(head: Head, params: Mapping[str, Any]) -> Callable[[], Head]:
    kind: Callable[..., Head] = type(head)
    return lambda: kind(**json.loads(json.dumps(dict(params), allow_nan=False)))


def _check_rows_stand_alone(head: Head, X: Rows) -> None:
    whole = head.decision_function(X)
    order = np.random.default_rng(0).permutation(len(X))
    for batch in _BATCHES:
        rows = order[:batch]
        require_same(head.decision_function(X[rows]), whole[rows], f"{batch} rows without the others")
    many = head.decision_function(np.repeat(X, 20, axis=0))[::20]
    require_same(many, whole, "rows among copies of themselves")


def _check_units_stand_alone(head: Head, X: Rows) -> None:
    """Check that a unit's score is of its own rows, one row is its own score, and a shift is taken off."""
    unit_of_row = np.random.default_rng(1).permutation(np.arange(len(X)) // 3)
    n_units = int(unit_of_row.max()) + 1
    whole = head.unit_scores(X, unit_of_row, n_units)
    of_rows = head.decision_function(X).reshape(len(X), -1)
    shape = (n_units, of_rows.shape[1])
    require(
        whole.shape == shape and whole.dtype == np.float64,
        f"unit_scores must return float64 of shape {shape}; found {whole.dtype} of {whole.shape}",
    )
    some = np.isin(unit_of_row, [1, 4])
    alone = head.unit_scores(X[some], (unit_of_row[some] == 4).astype(np.int64), 2)
    require_same(alone, whole[[1, 4]], "two units without the others")
    np.testing.assert_allclose(
        head.unit_scores(X, np.arange(len(X)), len(X)),
        of_rows,
        rtol=1e-9,
        atol=1e-9,
        err_msg="a unit of one row must have that row's score",
    )
    shift = np.zeros(shape[1])
    shift[-1] = 0.5
    moved = probabilities_from_scores(head.unit_scores(X, unit_of_row, n_units, shift=shift))
    require(
        bool((moved[:, -1] <= probabilities_from_scores(whole)[:, -1]).all()),
        "unit_scores must subtract the shift: one for the last class must not raise its probability",
    )
    weights = head.image_weights(X, unit_of_row, n_units)
    if weights is not None:
        sums = np.bincount(unit_of_row, weights)
        require(
            weights.shape == (len(X),)
            and bool((weights >= 0).all())
            and bool(np.allclose(sums, 1, atol=1e-9)),
            "image_weights must return None, or a weight of each row, 0 or more, that sum to 1 in each unit",
        )
        own = head.image_weights(X[some], (unit_of_row[some] == 4).astype(np.int64), 2)
        require(own is not None, "image_weights must be None always or never")
        require_same(np.asarray(own), weights[some], "image weights of two units without the others")


def _check_arrays(head: Head, X: Rows) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in head.to_arrays().items()}
    kept = safetensors.numpy.load(safetensors.numpy.save(arrays))
    params = json.loads(json.dumps(head.get_params(), allow_nan=False))
    again = type(head).from_arrays(kept, params)
    require_same(again.decision_function(X), head.decision_function(X), "built again from its arrays")
    require(again.classes_.tolist() == head.classes_.tolist(), "from_arrays must restore classes_")
    n_features = getattr(again, "n_features_in_", None)
    require(n_features == X.shape[1], f"from_arrays must restore n_features_in_; found {n_features}")
    require(
        json.dumps(again.get_params()) == json.dumps(head.get_params()),
        "from_arrays must restore the parameters",
    )
    for name in arrays:
        rest = {key: kept[key] for key in kept if key != name}
        load = partial(type(head).from_arrays, rest, params)
        require_raises(DataError, re.escape(name), load, f"from_arrays without {name!r}")
    words = np.where(head.predict(X) == 0, "a", "b")
    named = _maker(head, params)().fit(X, words)
    require_raises(DataError, "whole numbers", named.to_arrays, "keeping a head whose classes are words")


def _check_weights(head: Head, training: Training) -> None:
    """Check that a row of weight 0 teaches nothing, and that weights shift the answer towards their class."""
    X, y = training.X, training.y[:, 0]
    weight = np.where(y == 0, 8.0, 1.0)
    plain = head.fit(X, y).predict_proba(X)[:, 0].mean()
    weighted = head.fit(X, y, weight).predict_proba(X)[:, 0].mean()
    require(
        weighted > plain + 0.01,
        f"weights of 8 for the first class must raise its mean probability; it was {plain:.3f} and is {weighted:.3f}",
    )
    wrong = np.concatenate([y, 1 - np.minimum(y, 1)])
    silent = np.concatenate([np.ones(len(X)), np.zeros(len(X))])
    kept = head.fit(np.concatenate([X, X]), wrong, silent).decision_function(X)
    require_close(kept, head.fit(X, y).decision_function(X), 1e-3, "rows of weight 0 must teach nothing")


def check_family(family: HeadFamily, head: type[Head], *, n_classes: int) -> None:
    """Check that a grid keeps its contract (`heads.base.HeadFamily`) on a small problem.

    Points are plain JSON values; out-of-fold scores have their shape, are the same at every call, see neither the
    labels nor the other vectors of a row's fold, and keep targets apart; heads of all rows are made with the chosen
    parameters, and heads of the folds of several partitions never see what they score.

    Parameters
    ----------
    family
        The grid.
    head
        The class of its heads.
    n_classes
        Number of classes of the problem: check 2 and 3.

    Raises
    ------
    AssertionError
        With what was broken.
    """
    training = make_training(n_classes=n_classes)
    folds = folds_of(training)
    points = family.points
    require(len(points) > 0, "a grid must have a point")
    make: Callable[..., Head] = head
    for point in points:
        json.dumps(make(**json.loads(json.dumps(dict(point), allow_nan=False))).get_params(), allow_nan=False)
    found = family.out_of_fold(training, folds, seed=SEED)
    scores, shape = found.scores, (len(points), len(folds), 2, training.columns)
    require(
        scores.shape == shape and scores.dtype == np.float32,
        f"out_of_fold must return float32 scores of shape {shape}; found {scores.dtype} of {scores.shape}",
    )
    require(bool(np.isfinite(scores).all()), "out-of-fold scores must be finite where a point can be fitted")
    again = family.out_of_fold(training, folds, seed=SEED)
    require_same(again.scores, scores, "out-of-fold scores of the same seed")
    require(again.refit_params == found.refit_params, "refit_params of the same seed must be the same")
    losses, chance = log_losses(scores[0], training.y), np.log(n_classes)
    require(
        bool((losses < chance).all()),
        f"out-of-fold log loss of an easy problem must be below {chance:.3f}; found {losses}",
    )
    _check_no_leak(family, training, folds, scores)
    _check_targets_apart(family, training, folds, scores)
    _check_refit(family, head, training)
    check_cross_fit(family, head, make_training(n=120, n_classes=n_classes))


def _check_no_leak(
    family: HeadFamily, training: Training, folds: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]
) -> None:
    """Check that a fold's labels do not move its scores, nor its vectors the scores of others in it."""
    inside = folds == 0
    y, X = training.y.copy(), training.X.copy()
    y[inside] = 0
    flipped = family.out_of_fold(replace(training, y=y), folds, seed=SEED).scores
    # Probabilities, as a softmax does not see a common shift of its scores.
    before = probabilities_from_scores(scores)
    require_close(
        probabilities_from_scores(flipped)[:, inside],
        before[:, inside],
        SAME_PROBABILITY,
        "the labels of a fold must not move its own scores",
    )
    one = int(np.flatnonzero(inside)[0])
    X[inside & (np.arange(len(X)) != one)] += 50
    moved = family.out_of_fold(replace(training, X=X), folds, seed=SEED).scores
    require_close(
        probabilities_from_scores(moved)[:, one],
        before[:, one],
        SAME_PROBABILITY,
        "vectors of a fold must not move the scores of other rows in it (is something scaled on all rows?)",
    )


def _check_targets_apart(
    family: HeadFamily, training: Training, folds: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]
) -> None:
    """Check that missing labels and weights of one target do not move the other, and are as absent rows."""
    y, weight = training.y.copy(), training.sample_weight.copy()
    y[::4, 1] = MISSING
    weight[1::4, 1] = 0
    some = family.out_of_fold(replace(training, y=y, sample_weight=weight), folds, seed=SEED).scores
    require(bool(np.isfinite(some).all()), "rows without a label or a weight must be scored all the same")
    found, before = probabilities_from_scores(some), probabilities_from_scores(scores)
    require_close(
        found[:, :, 0],
        before[:, :, 0],
        SAME_PROBABILITY,
        "missing labels of one target must not move another",
    )
    y[1::4, 1] = MISSING
    same = family.out_of_fold(replace(training, y=y), folds, seed=SEED).scores
    require_close(
        probabilities_from_scores(same),
        found,
        SAME_PROBABILITY,
        "a weight of 0 must be the same as no label",
    )


def _check_refit(family: HeadFamily, head: type[Head], training: Training) -> None:
    y = training.y.copy()
    y[::4, 1] = MISSING
    training = replace(training, y=y)
    found = family.out_of_fold(training, folds_of(training), seed=SEED)
    last = len(family.points) - 1
    chosen = [found.params(family.points[point], point, target) for target, point in enumerate((0, last))]
    heads = family.refit(training, chosen, seed=SEED)
    again = family.refit(training, json.loads(json.dumps(chosen, allow_nan=False)), seed=SEED)
    for target, (fitted, twin, params) in enumerate(zip(heads, again, chosen, strict=True)):
        require(type(fitted) is head, f"refit must return {head.__name__}; found {type(fitted).__name__}")
        kept = fitted.get_params()
        require(
            kept.items() >= params.items(), f"refit must use the chosen parameters {params}; found {kept}"
        )
        classes = fitted.classes_.tolist()
        require(
            classes == list(range(training.n_classes)),
            f"classes_ must be every class, shown or not; found {classes}",
        )
        scores = fitted.decision_function(training.X).reshape(len(training.X), 1, -1)
        require_same(twin.decision_function(training.X), scores, "refitted with the same seed")
        loss = log_losses(scores, y[:, [target]])[0]
        require(
            loss < np.log(training.n_classes), f"log loss of a refitted head on its own rows is {loss:.3f}"
        )
        _check_arrays(fitted, training.X)


def check_chance(family: HeadFamily, *, worse_by: float) -> None:
    """Check that labels which have nothing to do with the vectors give the log loss of chance.

    Parameters
    ----------
    family
        The grid.
    worse_by
        How far the out-of-fold log loss of a point may be from log 2: a head that fits noise is far above.

    Raises
    ------
    AssertionError
        With the point that is further away.
    """
    training = make_training(n=600, signal=0.0, targets=1, seed=1)
    scores = family.out_of_fold(training, folds_of(training, 5), seed=0).scores
    for point, of_point in zip(family.points, scores, strict=True):
        loss = float(log_losses(of_point, training.y)[0])
        require(
            abs(loss - np.log(2)) <= worse_by,
            f"on labels without signal, {dict(point)} must be within {worse_by} of log loss 0.693; found {loss:.3f}",
        )
