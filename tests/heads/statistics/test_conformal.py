"""Conformal sets: bars worked out by hand, the promised rate by simulation, patients as the unit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.view import MISSING
from heads.statistics.bootstrap import draw_patients
from heads.statistics.conformal import (
    UNKNOWN,
    conformal_sets,
    conformal_sets_from_json,
    evaluate_sets,
    patient_shares,
    patients_needed,
)

CLASSES = ("normal", "abnormal")


def _two(probability: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - probability, probability])


def _clustered(
    generator: np.random.Generator, patients: int, rare: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One to eight units of one class per patient, whose logits share most of their noise."""
    units = generator.integers(1, 9, patients)
    patient = np.repeat(np.arange(patients), units)
    y = (generator.random(patients) < rare).astype(np.int64)[patient]
    noise = 1.5 * generator.normal(size=patients)[patient] + 0.5 * generator.normal(size=len(patient))
    return _two(1 / (1 + np.exp(-(2.0 * y - 1.0 + noise)))), y, patient


def test_a_bar_is_the_quantile_worked_out_by_hand() -> None:
    # Class 1: 9 patients, one unit each. 0.9 * (9 + 1) = 9 of 9 must reach the bar: the smallest.
    stated = np.array([0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    y = np.repeat([1, 0], 9)
    probabilities = _two(np.concatenate([stated, 1 - stated]))
    found = conformal_sets(probabilities, y, np.arange(18), classes=CLASSES)
    assert found.bars == pytest.approx((0.3, 0.3))
    # 0.8 * 10 = 8 of 9: the second smallest.
    found = conformal_sets(probabilities, y, np.arange(18), classes=CLASSES, coverage=0.8)
    assert found.bars == pytest.approx((0.4, 0.4))


def test_a_patient_of_many_units_weighs_as_one() -> None:
    stated = np.array([0.9] * 8 + [0.8] + [0.1] * 1000)
    patients = np.concatenate([np.arange(9), np.full(1000, 9)])
    probabilities = np.concatenate([_two(stated), _two(np.full(20, 0.05))])
    y = np.concatenate([np.ones(1009, np.int64), np.zeros(20, np.int64)])
    everyone = np.concatenate([patients, 100 + np.arange(20)])
    # 10 patients weigh 1 / 11 each: 9 good ones reach 9 / 11 = 0.818.
    assert conformal_sets(probabilities, y, everyone, classes=CLASSES, coverage=0.81).bars[1] == 0.8
    assert conformal_sets(probabilities, y, everyone, classes=CLASSES, coverage=0.82).bars[1] == 0.1


def test_shares_of_a_patient_sum_to_one() -> None:
    assert patient_shares(np.array(["b", "a", "b", "b"])).tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])


@pytest.mark.parametrize("rare", [0.5, 0.15])
def test_each_class_is_covered_at_the_promised_rate_with_clustered_patients(rare: float) -> None:
    generator = np.random.default_rng(4)
    held: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(400):
        probabilities, y, patients = _clustered(generator, 200, rare)
        sets = conformal_sets(probabilities, y, patients, classes=CLASSES)
        fresh, truth, patient = _clustered(generator, 200, rare)
        inside = sets.members(fresh)[np.arange(len(truth)), truth]
        for k in (0, 1):
            of_class = truth == k
            shares = patient_shares(patient[of_class])
            held[k].append(float((inside[of_class] * shares).sum() / shares.sum()))
    for k in (0, 1):
        error = np.std(held[k]) / np.sqrt(len(held[k]))
        # At least 90 %, and no more than one patient's weight above it.
        assert np.mean(held[k]) > 0.90 - 3 * error
        assert np.mean(held[k]) < 0.90 + 1 / (200 * min(rare, 1 - rare)) + 3 * error


def test_counting_units_as_independent_would_cover_unevenly_where_this_does_not() -> None:
    # Hard patients have many units: unit-wise bars are theirs; per patient the rate is met from above.
    generator = np.random.default_rng(1)
    by_patient, by_unit = [], []
    for _ in range(200):
        hard = generator.random(60) < 0.15
        units = np.where(hard, 1, 12)
        patient = np.repeat(np.arange(60), units)
        stated = np.where(hard[patient], 0.2, 0.9) + 0.05 * generator.random(len(patient))
        probabilities = np.concatenate([_two(stated), _two(np.full(20, 0.01))])
        y = np.concatenate([np.ones(len(patient), np.int64), np.zeros(20, np.int64)])
        everyone = np.concatenate([patient, 1000 + np.arange(20)])
        fresh = np.where(generator.random(500) < 0.15, 0.2, 0.9) + 0.05 * generator.random(500)
        for rates, groups in ((by_patient, everyone), (by_unit, np.arange(len(y)))):
            sets = conformal_sets(probabilities, y, groups, classes=CLASSES)
            rates.append(float(sets.members(_two(fresh))[:, 1].mean()))
    assert np.mean(by_patient) > 0.89
    assert np.mean(by_unit) < 0.87


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_so_many_patients_are_needed_that_a_class_can_be_left_out(coverage: float) -> None:
    needed = patients_needed(coverage)
    assert needed / (needed + 1) >= coverage - 1e-9
    assert (needed - 1) / needed < coverage


def test_a_class_of_too_few_patients_is_refused_with_the_reason() -> None:
    y = np.array([1] * 30 + [0] * 20)
    patients = np.array([0, 1, 2] * 10 + list(range(10, 30)))
    found = conformal_sets(_two(np.linspace(0, 1, 50)), y, patients, classes=CLASSES)
    assert "class 'abnormal' has 3 patients" in found.refused
    assert "need 9 of every class" in found.refused
    assert (found.members(_two(np.array([0.5]))) == UNKNOWN).all()


def test_units_without_a_label_have_no_part() -> None:
    generator = np.random.default_rng(0)
    probabilities, y, patients = _clustered(generator, 100, 0.5)
    some = generator.random(len(y)) < 0.3
    hidden = np.where(some, MISSING, y)
    probabilities_hidden = np.where(some[:, None], np.nan, probabilities)
    found = conformal_sets(probabilities_hidden, hidden, patients, classes=CLASSES)
    assert found == conformal_sets(probabilities[~some], y[~some], patients[~some], classes=CLASSES)


def test_a_rate_outside_0_and_1_is_refused() -> None:
    with pytest.raises(UsageError, match=r"coverage must be above 0 and below 1; found 1\.5"):
        conformal_sets(np.ones((2, 2)), np.array([0, 1]), np.arange(2), classes=CLASSES, coverage=1.5)


def test_evaluating_counts_what_is_in_the_sets() -> None:
    members = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [UNKNOWN, UNKNOWN], [1, 0]], np.int8)
    y = np.array([0, 1, 0, 1, 1, MISSING])
    draws = draw_patients(np.array(list("abcdef")), draws=200, seed=0)
    found = evaluate_sets(members, y, draws, classes=CLASSES)
    values = {name: entry.value for name, entry in found.items()}
    assert values == {
        "coverage": 0.5,
        "size": 1.0,
        "single": 0.5,
        "empty": 0.25,
        "coverage of normal": 0.5,
        "coverage of abnormal": 0.5,
    }
    assert found["coverage"].n == 4
    assert found["coverage of normal"].n == 2
    assert found["size"].low < 1.0 < found["size"].high
    assert evaluate_sets(members[4:5], y[4:5], draw_patients(np.array(["e"]), seed=0), classes=CLASSES) == {}


def test_sets_come_back_from_json() -> None:
    probabilities, y, patients = _clustered(np.random.default_rng(0), 100, 0.5)
    found = conformal_sets(probabilities, y, patients, classes=CLASSES)
    again = conformal_sets_from_json(json.loads(json.dumps(found.to_json())), source="here")
    assert again == found
    with pytest.raises(DataError, match="here: not conformal sets"):
        conformal_sets_from_json({"bars": 3}, source="here")


def test_a_unit_that_was_not_answered_has_no_set() -> None:
    sets = conformal_sets_from_json(
        {"coverage": 0.9, "bars": [0.4, 0.4], "patients": [20, 20], "refused": ""}, source="here"
    )
    members = sets.members(np.array([[0.5, 0.5], [np.nan, np.nan], [0.9, 0.1]]))
    assert members.tolist() == [[1, 1], [UNKNOWN, UNKNOWN], [1, 0]]
