"""Thresholds of grades in a run: from out-of-fold probabilities, measured on evaluated units, and in predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.estimators.logistic import LogisticFamily
from heads.runs.answers import predict_units
from heads.runs.run import Run
from heads.runs.run_files import load_run, save_run
from heads.statistics.thresholds import choose_thresholds
from tests.views import make_view, probed

RULE = "sensitivity-0.90"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    view = make_view(
        classes=("normal", "moderate", "severe"), targets=("upper", "lower"), patients=90, signal=3
    )
    view = replace(view, task=replace(view.task, ordered=True))
    grid = LogisticFamily(strengths=(1.0,), normalisations=("none",))
    result = probed(view, family=grid, folds=3, draws=20)
    return load_run(save_run(tmp_path_factory.mktemp("run") / "run", result).folder)


def test_a_run_of_grades_has_thresholds_from_out_of_fold_probabilities(run: Run) -> None:
    learned = run.out_of_fold
    for index, entry in enumerate(run.document["heads"]):
        severe = learned.probabilities[:, index, 2]
        by_hand = choose_thresholds((learned.y[:, index] == 2).astype(int), severe)
        assert entry["grade_thresholds"]["severe"] == pytest.approx(by_hand)
        moderate = learned.probabilities[:, index, 1] + severe
        by_hand = choose_thresholds((learned.y[:, index] >= 1).astype(int), moderate)
        assert entry["grade_thresholds"]["moderate"] == pytest.approx(by_hand)


def test_their_sensitivity_and_specificity_are_measured_on_the_evaluated_units(run: Run) -> None:
    evaluated = run.evaluated
    for grade, least in (("moderate", 1), ("severe", 2)):
        sensitivity, specificity = [], []
        for index, entry in enumerate(run.document["heads"]):
            reached = (
                evaluated.probabilities[:, index, least:].sum(1) >= entry["grade_thresholds"][grade][RULE]
            )
            positive = evaluated.y[:, index] >= least
            sensitivity.append(reached[positive].mean())
            specificity.append((~reached)[~positive].mean())
        found = run.document["at_grades"][grade][RULE]
        assert found["recall"]["value"] == pytest.approx(np.mean(sensitivity))
        assert found["specificity"]["value"] == pytest.approx(np.mean(specificity))
        assert found["recall"]["low"] <= found["recall"]["value"]


def test_a_prediction_at_a_rule_decides_for_the_gravest_grade_that_is_reached(run: Run) -> None:
    X = np.random.default_rng(1).normal(size=(30, 6)) * 2
    names = [str(row) for row in range(30)]
    plain = predict_units(run, X, np.arange(30), names)
    at_rule = predict_units(run, X, np.arange(30), names, threshold=RULE)
    decided = set()
    for likely, ruled in zip(plain, at_rule, strict=True):
        one, other = likely["targets"]["upper"], ruled["targets"]["upper"]
        assert "at_least" not in one
        assert one["probabilities"] == other["probabilities"]
        said = other["at_least"]
        assert said["severe"]["probability"] == pytest.approx(one["probabilities"]["severe"])
        assert said["moderate"]["threshold"] == run.document["heads"][0]["grade_thresholds"]["moderate"][RULE]
        gravest = (
            "severe" if said["severe"]["reached"] else "moderate" if said["moderate"]["reached"] else "normal"
        )
        assert other["decision"] == gravest
        decided.add(gravest)
    assert decided == {"normal", "moderate", "severe"}
    half = predict_units(run, X[:1], [0], ["a"], threshold="0.2")[0]["targets"]["upper"]["at_least"]
    assert half["severe"]["threshold"] == 0.2
    with pytest.raises(UsageError, match=r"threshold must be one of half, sensitivity-0.90"):
        predict_units(run, X[:1], [0], ["a"], threshold="best")


def test_a_run_of_two_classes_or_of_no_grades_has_none(tmp_path: Path) -> None:
    grid = LogisticFamily(strengths=(1.0,), normalisations=("none",))
    document = save_run(
        tmp_path / "run", probed(make_view(patients=60), family=grid, folds=3, draws=5)
    ).document
    assert "at_grades" not in document
    assert document["heads"][0]["grade_thresholds"] == {}
    assert "severity" not in document
