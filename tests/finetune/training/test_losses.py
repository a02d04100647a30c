"""Losses of cells with and without labels, against sums by hand and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.training.losses import (
    cell_weights,
    class_weights_of,
    log_odds_of_classes,
    probabilities_of,
    summed_loss,
)
from finetune.training.validation import unit_probabilities, validation_of

Y = np.array([[1, -1], [0, 1], [0, 0], [0, -1]])


def test_a_binary_loss_is_the_sum_over_labelled_cells():
    logits = np.array([[0.5, 9.0], [-1.0, 2.0], [3.0, -0.5], [0.0, 9.0]])
    weights = np.array([[1.0, 3.0], [2.0, 1.0]])
    said = 1 / (1 + np.exp(-logits))
    by_hand = -(
        3 * np.log(said[0, 0])
        + np.log(1 - said[1:, 0]).sum()
        + np.log(said[1, 1])
        + 2 * np.log(1 - said[2, 1])
    )
    found = summed_loss(torch.tensor(logits), torch.tensor(Y), torch.tensor(weights))
    assert float(found) == pytest.approx(by_hand, rel=1e-6)
    assert float(cell_weights(torch.tensor(Y), torch.tensor(weights)).sum()) == 3 + 3 + 1 + 2


def test_a_choice_among_three_classes_is_the_sum_over_labelled_cells():
    y, drawn = np.array([[2, -1], [0, 1]]), np.random.default_rng(0)
    logits = drawn.normal(size=(2, 6))
    rows = logits.reshape(2, 2, 3)
    said = np.exp(rows) / np.exp(rows).sum(2, keepdims=True)
    by_hand = -(np.log(said[0, 0, 2]) + np.log(said[1, 0, 0]) + np.log(said[1, 1, 1]))
    found = summed_loss(torch.tensor(logits), torch.tensor(y), torch.ones(2, 3, dtype=torch.float64))
    assert float(found) == pytest.approx(by_hand, rel=1e-6)
    assert probabilities_of(logits, n_targets=2, n_classes=3) == pytest.approx(said)


def test_balanced_weights_give_every_class_the_same_total():
    weights = class_weights_of(Y, n_classes=2, rule="balanced")
    assert weights[0].tolist() == pytest.approx([4 / (2 * 3), 4 / 2])
    assert weights[1].tolist() == [1.0, 1.0]
    assert (class_weights_of(Y, n_classes=2, rule="none") == 1).all()


def test_an_untrained_head_says_how_frequent_classes_are():
    assert log_odds_of_classes(Y, n_classes=2) == pytest.approx([np.log(1.5 / 3.5), 0.0])


def test_a_unit_is_judged_by_the_mean_of_its_images():
    said = np.array([[[0.2, 0.8]], [[0.6, 0.4]], [[0.9, 0.1]], [[0.5, 0.5]]])
    speaks = np.array([[True], [True], [True], [False]])
    of_units = unit_probabilities(said, np.array([0, 0, 1, 2]), speaks, n_units=3)
    assert of_units[:2, 0, 1] == pytest.approx([0.6, 0.1])
    assert np.isnan(of_units[2]).all()
    found = validation_of(np.array([[1], [0], [-1]]), of_units)
    assert (found.auroc, found.accuracy, found.units) == (1.0, 1.0, 2)
    assert found.loss == pytest.approx(-(np.log(0.6) + np.log(0.9)) / 2)
