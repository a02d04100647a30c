"""Doubtful labels: by hand, and found again where they were turned on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.view import MISSING
from heads.statistics.label_noise import label_noise_candidates

CLASSES = ("normal", "abnormal")


def _two(probability: list[float]) -> np.ndarray:
    return np.column_stack([1 - np.array(probability), probability])


def test_candidates_are_those_worked_out_by_hand() -> None:
    # Usual probability of abnormal among abnormal: (0.9 + 0.7 + 0.05) / 3 = 0.55; of normal among normal:
    # (0.9 + 0.8 + 0.4 + 0.1) / 4 = 0.55.
    probabilities = _two([0.9, 0.7, 0.05, 0.1, 0.2, 0.6, 0.9])
    y = np.array([1, 1, 1, 0, 0, 0, 0])
    found = label_noise_candidates(y, probabilities, CLASSES)
    assert [(entry.row, entry.label, entry.suggested) for entry in found] == [
        (2, "abnormal", "normal"),
        (6, "normal", "abnormal"),
        (5, "normal", "abnormal"),
    ]
    assert found[0].probability_of_label == pytest.approx(0.05)
    assert found[0].probability_of_suggested == pytest.approx(0.95)


def test_a_class_that_is_more_probable_but_less_than_usual_makes_no_candidate() -> None:
    # 0.6 for abnormal is more than for the label, but abnormal units usually have 0.9.
    assert label_noise_candidates(np.array([1, 1, 0, 0]), _two([0.9, 0.9, 0.6, 0.1]), CLASSES) == []


def test_turned_labels_are_among_the_first() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 2, 2000)
    probability = 1 / (1 + np.exp(-(6.0 * true - 3.0 + generator.normal(size=2000))))
    turned = generator.choice(2000, 60, replace=False)
    y = true.copy()
    y[turned] = 1 - y[turned]
    found = {entry.row for entry in label_noise_candidates(y, _two(probability.tolist()), CLASSES)}
    # Of the 3 % that were turned most are found, and nearly all that is found was turned.
    right = len(found & set(turned.tolist()))
    assert right > 0.6 * len(turned)
    assert right > 0.9 * len(found)


def test_three_classes_suggest_the_likeliest_that_is_usual() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.05, 0.05, 0.9]])
    found = label_noise_candidates(np.array([0, 1, 2, 0]), probabilities, ("a", "b", "c"))
    assert [(entry.row, entry.suggested) for entry in found] == [(3, "c")]


def test_units_without_a_label_are_no_candidates() -> None:
    y = np.array([1, MISSING, 0])
    probabilities = np.array([[0.1, 0.9], [np.nan, np.nan], [0.9, 0.1]])
    assert label_noise_candidates(y, probabilities, CLASSES) == []
    assert label_noise_candidates(np.full(3, MISSING), probabilities, CLASSES) == []
