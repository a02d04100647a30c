"""The logistic head keeps the contract that every head keeps; the others do so in their own tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heads.estimators.logistic import LogisticFamily, LogisticHead
from heads.testing import check_chance, check_family, check_head, make_training

GRID = LogisticFamily(strengths=(0.01, 1.0))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_keeps_the_contract(n_classes: int) -> None:
    check_head(LogisticHead(C=0.3), n_classes=n_classes)
    check_family(GRID, LogisticHead, n_classes=n_classes)


def test_labels_without_signal_give_chance() -> None:
    check_chance(GRID, worse_by=0.05)


def test_a_unit_has_the_mean_of_its_rows_probabilities_less_the_class_weights() -> None:
    head = LogisticHead.from_arrays(
        {"classes": np.arange(2), "coef": np.array([[1.0]]), "intercept": np.array([0.0])}, {}
    )
    X = np.array([[0.0], [2.0], [5.0]], np.float32)
    plain = head.unit_scores(X, np.array([1, 1, 0]), 2)
    mean = (0.5 + 1 / (1 + np.exp(-2))) / 2
    assert plain[:, 0] == pytest.approx([5.0, np.log(mean / (1 - mean))])
    shifted = head.unit_scores(X, np.array([1, 1, 0]), 2, shift=np.array([1.0]))
    mean = (1 / (1 + np.exp(1)) + 1 / (1 + np.exp(-1))) / 2
    assert shifted[:, 0] == pytest.approx([4.0, np.log(mean / (1 - mean))])


def test_the_first_row_of_a_unit_stands_for_it() -> None:
    training = replace(make_training(n=6, targets=1), unit_of_row=np.array([2, 0, 0, 1, 2, 1]), n_units=3)
    assert training.row_of_unit.tolist() == [1, 3, 0]
