"""Evidence is what the runs say: the same numbers as in run.json and in `embed compare`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from embedstore.errors import UsageError
from finetune.escalation.evidence import gather_evidence
from finetune.escalation.goal import parse_goal
from heads.comparing.comparison_table import comparison_table
from heads.runs.run import Run
from heads.runs.run_warnings import TRAINED

Runs = dict[str, Run]
CURVE = {
    "points": [
        {
            "patients": patients,
            "repeats": 5,
            "metrics": {"log_loss": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}},
        }
        for patients in (50, 100)
    ]
}


def test_the_goal_is_measured_as_the_run_says(escalated_runs: Runs) -> None:
    run = escalated_runs["own"]
    found = gather_evidence(run, parse_goal("kappa>=0.5"))
    said = run.evaluated
    by_sklearn = cohen_kappa_score(said.y[:, 0], said.probabilities[:, 0, 1] >= 0.5)
    assert found.value.value == pytest.approx(by_sklearn)
    assert found.value.value == pytest.approx(run.document["metrics"]["kappa"]["value"])
    # The same interval but for the number of draws.
    assert found.value.low == pytest.approx(run.document["metrics"]["kappa"]["low"], abs=0.05)
    assert 0 < found.met_share < 1
    assert found.patients_evaluated == len(np.unique(said.patients))
    assert found.images_learned == len(run.learned_images)
    assert {"ece", "calibration_slope", "log_loss", "log_loss_before_calibration"} == set(found.calibration)


def test_chance_is_told_from_signal(escalated_runs: Runs) -> None:
    goal = parse_goal("auroc>=0.9")
    assert gather_evidence(escalated_runs["own"], goal).signal_p == pytest.approx(1 / 1001)
    assert gather_evidence(escalated_runs["nothing"], goal).signal_p > 0.1


def test_other_runs_are_paired_and_told_apart(escalated_runs: Runs) -> None:
    others = [escalated_runs["nearest"], escalated_runs["sharper"]]
    # A run that is kept twice, or beside itself, is one run.
    twice = [*others, others[1], escalated_runs["own"]]
    found = gather_evidence(escalated_runs["own"], parse_goal("log_loss<=0.3"), twice)
    assert [other.head for other in found.heads] == ["knn"]
    assert [other.encoder for other in found.encoders] == ["sharper"]
    table = comparison_table([escalated_runs["own"], *others], draws=1000, seed=0)
    for other, row in zip(found.others, table.runs[1:], strict=True):
        assert other.value.value == pytest.approx(row.metrics["log_loss"].value)
        # Of a loss less is better: the sign is turned.
        assert other.difference.estimate.value == pytest.approx(-row.differences["log_loss"].estimate.value)
        assert other.difference.estimate.low == pytest.approx(
            -row.differences["log_loss"].estimate.high, abs=0.01
        )
    # Two heads were tried, so that the smaller p-value counts twice.
    assert found.signal_p == pytest.approx(2 / 1001)


def test_a_run_that_was_evaluated_on_who_taught_its_encoder_is_refused_or_left_out(
    escalated_runs: Runs,
) -> None:
    own, goal = escalated_runs["own"], parse_goal("auroc>=0.9")
    seen = {"kind": TRAINED, "target": "", "text": "12 patients"}
    with pytest.raises(UsageError, match="says nothing of new ones; probe its store with `trained_patients"):
        gather_evidence(replace(own, document={**own.document, "warnings": [seen]}), goal)
    taught = replace(
        escalated_runs["sharper"], document={**escalated_runs["sharper"].document, "warnings": [seen]}
    )
    found = gather_evidence(own, goal, [taught])
    assert found.others == ()
    assert "its encoder was fine-tuned on patients of its run" in found.notes[0]


def test_a_run_of_other_studies_is_named_and_left_out(escalated_runs: Runs) -> None:
    found = gather_evidence(escalated_runs["own"], parse_goal("auroc>=0.9"), [escalated_runs["elsewhere"]])
    assert found.others == ()
    assert len(found.notes) == 1
    assert "elsewhere is left out: a unit must have the same" in found.notes[0]


def test_more_patients_bring_the_run_what_its_curve_gains(escalated_runs: Runs) -> None:
    run, goal = escalated_runs["own"], parse_goal("log_loss<=0.3")
    found = gather_evidence(run, goal, curve=CURVE)
    assert [patients for patients, _ in found.points] == [50, 100]
    assert found.no_curve == "the learning curve has 2 sizes, of which no law can be extrapolated"
    gains = {"log_loss": {"value": 0.1, "low": 0.05, "high": 0.2, "n": 9}}
    curve = CURVE | {"extrapolated": [{"times": 2, "patients": 200, "gains": gains}]}
    (beyond,) = gather_evidence(run, goal, curve=curve).beyond
    value = run.document["metrics"]["log_loss"]["value"]
    assert beyond.reached == pytest.approx((value - 0.1, value - 0.2, value - 0.05))


def test_a_curve_that_says_nothing_of_the_goal_is_named(escalated_runs: Runs) -> None:
    assert gather_evidence(escalated_runs["own"], parse_goal("kappa>=0.5"), curve=CURVE).no_curve == (
        "the learning curve has no kappa, only log_loss"
    )
    assert (
        gather_evidence(escalated_runs["own"], parse_goal("kappa>=0.5")).no_curve
        == "the run has no learning curve"
    )


def test_a_goal_of_another_task_is_refused(escalated_runs: Runs) -> None:
    with pytest.raises(UsageError, match=r"no target 'findin'; it has finding\. Did you mean 'finding'"):
        gather_evidence(escalated_runs["own"], parse_goal("findin:auroc>=0.9"))
    with pytest.raises(UsageError, match="the run has no quadratic_kappa; it has auroc, "):
        gather_evidence(escalated_runs["own"], parse_goal("quadratic_kappa>=0.9"))
    assert gather_evidence(escalated_runs["own"], parse_goal("finding:auroc>=0.9")).value.n > 0
