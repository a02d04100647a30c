"""The weights of a blend against brute force and a general solver, and how few patients pull them together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from heads.blending.weights import SHRINKAGE, fit_weights, ridge_of
from heads.scores import blended


def mean_loss(log_odds, y, weights):
    """Mean log loss of the weighted sum, by the plain formula."""
    scores = np.tensordot(log_odds, weights, (1, 0))
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    odds = np.exp(scores)
    return -np.log(odds[np.arange(len(y)), y] / odds.sum(axis=1)).mean()


def penalised(weights, log_odds, y, ridge):
    return mean_loss(log_odds, y, weights) + ridge / 2 * ((weights - 1 / len(weights)) ** 2).sum()


def make_parts(noise, *, n=400, n_classes=2, seed=0):
    """Return (n, parts, columns) noisy log odds and labels drawn from the true ones."""
    generator = np.random.default_rng(seed)
    true = generator.normal(0, 2, (n, n_classes))
    p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    y = (p.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    # Each part states what its noisy view is worth: the mean of the true ones, given what it sees.
    seen = np.stack(
        [(true + scale * generator.normal(size=true.shape)) * 4 / (4 + scale**2) for scale in noise], axis=1
    )
    if n_classes == 2:
        return seen[:, :, 1:] - seen[:, :, :1], y
    return seen - seen.mean(axis=2, keepdims=True), y


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("ridge", [1e-3, 0.2])
def test_weights_of_two_parts_are_those_of_a_grid(n_classes, ridge):
    log_odds, y = make_parts((1.0, 2.5), n_classes=n_classes)
    found = fit_weights(log_odds, y, ridge=ridge)
    axis = np.linspace(0, 1.5, 61)
    losses = [[penalised(np.array([a, b]), log_odds, y, ridge) for b in axis] for a in axis]
    best = np.unravel_index(np.argmin(losses), (61, 61))
    assert found == pytest.approx([axis[best[0]], axis[best[1]]], abs=0.026)
    assert penalised(found, log_odds, y, ridge) <= np.min(losses)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_weights_are_those_of_a_general_solver(n_classes):
    log_odds, y = make_parts((1.0, 2.0, 0.8, 30.0), n_classes=n_classes, seed=1)
    # Against the labels: such a part is left out, not turned around.
    against = -log_odds[:, 2:3] + 2 * np.random.default_rng(2).normal(size=log_odds[:, :1].shape)
    log_odds = np.concatenate([log_odds, against], axis=1)
    ridge = 1e-3
    found = fit_weights(log_odds, y, ridge=ridge)
    other = minimize(
        penalised,
        np.full(5, 0.2),
        (log_odds, y, ridge),
        method="SLSQP",
        bounds=[(0, None)] * 5,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found == pytest.approx(other.x, abs=2e-4)
    assert penalised(found, log_odds, y, ridge) <= other.fun + 1e-12
    assert found[4] == 0
    assert (found >= 0).all()


def test_separable_labels_have_finite_weights():
    log_odds = np.array([[-3.0, -1.0], [-2.0, -2.0], [2.0, 1.0], [4.0, 3.0]])[..., None]
    found = fit_weights(log_odds, np.array([0, 0, 1, 1]), ridge=1e-4)
    assert np.isfinite(found).all()
    assert found.max() < 10


def test_a_part_alone_stands_as_it_is():
    log_odds, y = make_parts((1.0,))
    assert fit_weights(log_odds, y, ridge=0.1).tolist() == [1.0]
    assert blended(log_odds[:, :, None], [[1.0]]).tolist() == log_odds[:, 0, None].tolist()


def test_few_patients_leave_the_weights_near_equal_and_many_find_the_better_part():
    noise = (0.7, 2.0, 3.0)
    pulled, free = [], []
    for seed in range(10):
        few, y = make_parts(noise, n=40, seed=seed)
        pulled.append(fit_weights(few, y, ridge=ridge_of(y, np.arange(40), n_classes=2)))
        free.append(fit_weights(few, y, ridge=1e-6))
    assert np.mean(pulled, axis=0) == pytest.approx([1 / 3] * 3, abs=0.2)
    assert np.ptp(pulled, axis=1).mean() < 0.5 * np.ptp(free, axis=1).mean()
    many, y = make_parts(noise, n=4000)
    weights = fit_weights(many, y, ridge=ridge_of(y, np.arange(4000), n_classes=2))
    assert weights[0] > 4 * max(weights[1:])
    assert weights == pytest.approx(fit_weights(many, y, ridge=1e-6), abs=0.02)


def test_the_pull_counts_patients_of_the_rarest_class_and_not_their_units():
    y, patients = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 3, 4])
    assert ridge_of(y, patients, n_classes=2) == pytest.approx(SHRINKAGE / 2 / 5)
    copies = np.repeat(patients, 3)
    assert ridge_of(np.repeat(y, 3), copies, n_classes=2) == pytest.approx(SHRINKAGE / 2 / 5)
