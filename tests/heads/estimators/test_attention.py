"""Attention over the images of a unit: scikit-learn's manners, what it finds, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.errors import DataError, UsageError
from heads.base import Training
from heads.ensemble import EnsembleHead
from heads.estimators.attention import AttentionFamily, AttentionHead
from heads.testing import check_chance, check_family, check_head, make_training

SMALL = {"hidden": 3, "epochs": 2, "minimum_steps": 12}
GRID = AttentionFamily((SMALL, SMALL | {"queries": 2, "ordered": True, "components": 6, "l2": 0.02}))
# A row of weight w in one batch is not w rows scattered over batches: true of every stochastic training.
WEIGHTS_ARE_NOT_COPIES = {
    "check_sample_weight_equivalence_on_dense_data": "rows are drawn in batches: w copies meet other rows"
}


# Of two columns, which the checks have, a layer norm leaves no more than a sign.
@parametrize_with_checks(
    [AttentionHead(**SMALL, layer_norm=False)], expected_failed_checks=lambda head: WEIGHTS_ARE_NOT_COPIES
)
def test_the_head_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("params", [{}, {"queries": 2, "ordered": True, "components": 5}])
def test_the_head_keeps_the_contract(n_classes: int, params: dict[str, Any]) -> None:
    check_head(AttentionHead(**SMALL, **params), n_classes=n_classes)


@pytest.mark.parametrize(("n_classes", "points"), [(2, GRID.points[1:]), (3, GRID.points)])
def test_the_grid_keeps_the_contract(n_classes: int, points: tuple[Mapping[str, Any], ...]) -> None:
    check_family(AttentionFamily(points), AttentionHead, n_classes=n_classes)


def test_labels_without_signal_give_the_prevalence() -> None:
    check_chance(AttentionFamily(), worse_by=0.03)


def make_needles(n_units: int, *, seed: int, images: int = 8) -> tuple[Training, np.ndarray]:
    """Make units of which one image shows a finding, or none does; return also the row of that image."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, n_units)
    unit_of_row = np.repeat(np.arange(n_units), images)
    X = generator.normal(size=(len(unit_of_row), 12))
    needles = np.arange(n_units) * images + generator.integers(0, images, n_units)
    X[needles, :2] += 3.0 * y[:, None]
    training = Training.of_rows(
        X.astype(np.float32),
        y[unit_of_row][:, None],
        sample_weight=np.ones((len(X), 1), np.float32),
        groups=unit_of_row,
        n_classes=2,
    )
    return type(training)(**{**vars(training), "unit_of_row": unit_of_row, "n_units": n_units}), needles


def test_the_image_with_the_finding_is_found_and_named() -> None:
    images = 16
    learned, _ = make_needles(300, seed=0, images=images)
    fresh, needles = make_needles(400, seed=1, images=images)
    y = fresh.y[fresh.row_of_unit, 0]
    head = AttentionHead(l2=0.02).fit(learned.X, learned.y[:, 0], unit_of_row=learned.unit_of_row)
    pooled = LogisticRegression().fit(learned.X.reshape(300, images, -1).mean(1), learned.y[::images, 0])
    found = roc_auc_score(y, head.unit_scores(fresh.X, fresh.unit_of_row, 400)[:, 0])
    of_means = roc_auc_score(y, pooled.predict_proba(fresh.X.reshape(400, images, -1).mean(1))[:, 1])
    assert found > of_means + 0.1
    weights = head.image_weights(fresh.X, fresh.unit_of_row, 400)
    heaviest = weights.reshape(400, images).argmax(1) + np.arange(400) * images
    assert np.mean(heaviest[y == 1] == needles[y == 1]) > 0.8  # by chance 1 in 16
    assert weights.reshape(400, images).sum(1) == pytest.approx(1)


def test_with_one_image_a_unit_it_is_a_linear_head_within_noise() -> None:
    learned, fresh = (make_training(n=1200, targets=1, signal=1.5, seed=seed) for seed in (0, 0))
    X, y = learned.X[:600], learned.y[:600, 0]
    head = AttentionHead(layer_norm=False, l2=0.01).fit(X, y)
    linear = LogisticRegression(C=1 / (600 * 0.01)).fit((X - X.mean(0)) / X.std(0), y)
    scaled = (fresh.X[600:] - X.mean(0)) / X.std(0)
    found, expected = head.predict_proba(fresh.X[600:]), linear.predict_proba(scaled)
    truth = fresh.y[600:, 0]
    assert log_loss(truth, found) == pytest.approx(log_loss(truth, expected), abs=0.01)
    assert roc_auc_score(truth, found[:, 1]) == pytest.approx(roc_auc_score(truth, expected[:, 1]), abs=0.005)
    assert (head.image_weights(X, np.arange(600), 600) == 1).all()


def test_grades_are_learned_with_their_order() -> None:
    generator = np.random.default_rng(0)
    severity = generator.normal(size=600)
    y = np.digitize(severity + 0.5 * generator.normal(size=600), [-1, 0, 1])
    X = np.stack([severity, *generator.normal(size=(5, 600))], axis=1).astype(np.float32)
    head = AttentionHead(ordered=True, layer_norm=False, l2=0.01).fit(X[:400], y[:400])
    probabilities = head.predict_proba(X[400:])
    assert probabilities.sum(axis=1) == pytest.approx(1)
    # One direction: whoever is more severe by the score is so in every cumulative probability.
    order = np.argsort(probabilities @ np.arange(4))
    above = 1 - np.cumsum(probabilities[order], axis=1)[:, :-1]
    assert (np.diff(above, axis=0) > -1e-9).all()
    nominal = LogisticRegression().fit(X[:400], y[:400]).predict_proba(X[400:])
    assert log_loss(y[400:], probabilities) < log_loss(y[400:], nominal) + 0.03


def make_positions(seed: int) -> tuple[Training, np.ndarray]:
    """Make units whose middle image alone tells their class; the last three columns say where an image lies."""
    training, _ = make_needles(300, seed=seed, images=3)
    generator = np.random.default_rng(seed + 10)
    X = generator.normal(size=(900, 12)).astype(np.float32)
    y = training.y[::3, 0]
    # What the class looks like in the middle is noise elsewhere.
    X[1::3, 0] = 1.5 * (2 * y - 1) + generator.normal(size=300)
    X[0::3, 0], X[2::3, 0] = generator.normal(size=(2, 300)) * 3
    place = np.tile(np.eye(3, dtype=np.float32), (300, 1)) * 2.5
    return type(training)(**{**vars(training), "X": np.concatenate([X, place], axis=1)}), y


def test_positions_say_which_image_to_look_at() -> None:
    (learned, _), (fresh, y) = make_positions(0), make_positions(1)
    found = {}
    for positions in (0, 3):
        dim = 12 + positions
        head = AttentionHead(positions=positions, l2=0.02).fit(
            learned.X[:, :dim], learned.y[:, 0], unit_of_row=learned.unit_of_row
        )
        found[positions] = roc_auc_score(y, head.unit_scores(fresh.X[:, :dim], fresh.unit_of_row, 300)[:, 0])
    assert found[3] > found[0] + 0.1
    weights = head.image_weights(fresh.X, fresh.unit_of_row, 300).reshape(300, 3).mean(0)
    assert weights.argmax() == 1


def test_an_image_whose_position_is_unknown_has_an_answer() -> None:
    learned, _ = make_positions(0)
    X = learned.X.copy()
    X[np.random.default_rng(0).random(900) < 0.3, 12:] = 0
    head = AttentionHead(**SMALL, positions=3).fit(X, learned.y[:, 0], unit_of_row=learned.unit_of_row)
    unknown = X[:6].copy()
    unknown[:, 12:] = 0
    assert np.isfinite(head.unit_scores(unknown, np.repeat([0, 1], 3), 2)).all()
    nowhere = AttentionHead(**SMALL, positions=3).fit(
        np.concatenate([X[:, :12], np.zeros((900, 3), np.float32)], axis=1), learned.y[:, 0]
    )
    assert np.isfinite(nowhere.decision_function(unknown)).all()


def test_units_may_have_names_and_stand_in_any_order() -> None:
    training, _ = make_needles(60, seed=0)
    numbers, y = training.unit_of_row, training.y[:, 0]
    order = np.random.default_rng(0).permutation(len(y))
    names = np.array([f"study{unit:02d}" for unit in numbers])
    head = AttentionHead(**SMALL, validation_share=0.0).fit(training.X, y, unit_of_row=numbers)
    again = AttentionHead(**head.get_params()).fit(training.X[order], y[order], unit_of_row=names[order])
    expected = head.unit_scores(training.X, numbers, 60)
    assert again.unit_scores(training.X, numbers, 60) == pytest.approx(expected, abs=1e-3)
    rows_alone = AttentionHead(**head.get_params()).fit(training.X, y)
    assert np.abs(rows_alone.unit_scores(training.X, numbers, 60) - expected).max() > 0.1


@pytest.mark.parametrize("what", ["labels", "weights", "groups"])
def test_images_of_a_unit_that_disagree_are_refused(what: str) -> None:
    training, _ = make_needles(20, seed=0)
    given = {
        "labels": training.y[:, 0].copy(),
        "weights": np.ones(160),
        "groups": training.unit_of_row.copy(),
    }
    given[what][17] = 1 - given[what][17] if what == "labels" else 19
    with pytest.raises(ValueError, match=rf"same {what}; unit 'u2' has several"):
        AttentionHead(**SMALL).fit(
            training.X,
            given["labels"],
            given["weights"],
            given["groups"],
            unit_of_row=np.array([f"u{unit}" for unit in training.unit_of_row]),
        )


def test_units_of_one_class_are_refused() -> None:
    training, _ = make_needles(20, seed=0)
    with pytest.raises(ValueError, match="one class"):
        AttentionHead(**SMALL).fit(training.X, np.ones(160, int), unit_of_row=training.unit_of_row)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"queries": 0}, "queries cannot be 0; it must be 1 or more"),
        ({"dropout": 1.0}, "dropout cannot be 1.0; it must be from 0 to below 1"),
        ({"l2": 0.0}, "l2 cannot be 0.0; it must be above 0"),
        ({"stop_after": 99}, "stop_after cannot be 99; it must be from 0 to epochs"),
        ({"validation_share": 0.9}, "validation_share must be from 0 to 0.5; found 0.9"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(params: dict[str, Any], named: str) -> None:
    training = make_training(n=40, targets=1)
    with pytest.raises(UsageError, match=named):
        AttentionHead(**params).fit(training.X, training.y[:, 0])


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    training = make_training(n=60, targets=1, n_classes=3)
    head = AttentionHead(**SMALL).fit(training.X, training.y[:, 0])
    arrays = head.to_arrays()
    for name, wrong in (
        ("query", arrays["query"][:2]),
        ("value", arrays["value"][:5]),
        ("gate_bias", arrays["gate_bias"][:3]),
    ):
        with pytest.raises(DataError, match="must belong to 8 features"):
            AttentionHead.from_arrays({**arrays, name: wrong}, head.get_params())
    with pytest.raises(DataError, match="of 2 classes must have 1 outputs"):
        AttentionHead.from_arrays({**arrays, "classes": np.arange(2)}, head.get_params())


def test_an_ensemble_weighs_images_by_the_mean_of_its_members() -> None:
    training, _ = make_needles(60, seed=0)
    units = training.unit_of_row
    crossed = GRID.cross_fit(training, (units % 3)[None], [SMALL], seed=0)
    ensemble = EnsembleHead(crossed.heads[0])
    members = [head.image_weights(training.X, units, 60) for head in crossed.heads[0]]
    assert ensemble.image_weights(training.X, units, 60) == pytest.approx(np.mean(members, axis=0))
    assert np.std([member[0] for member in members]) > 0
