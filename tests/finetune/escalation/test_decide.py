"""The rule: each answer where its reason holds, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune.escalation.decide import Decision, Verdict, decide, recommended_method
from finetune.escalation.evidence import Beyond, OtherRun, RunEvidence
from finetune.escalation.goal import parse_goal
from finetune.escalation.label_ceiling import LabelEvidence
from finetune.escalation.predicted_gain import SHARES, predicted_gain
from heads.statistics.bootstrap import Difference, Estimate

LABELS = LabelEvidence(
    labelled=400,
    doubtful=30,
    surest=100,
    surest_errors=2,
    others=300,
    other_errors=60,
    saturated=False,
    wrong_share=0.0,
    ceiling=float("nan"),
)


def around(value: float, *, by: float = 0.05) -> Estimate:
    return Estimate(value, value - by, value + by, 200)


def beside(value: float, *, same: bool, p_value: float = 0.001, chance_p: float = 0.001) -> OtherRun:
    difference = value - 0.7
    return OtherRun(
        name="other",
        encoder="fake" if same else "hog",
        head="knn",
        folder="runs/other",
        same_vectors=same,
        value=around(value),
        own=0.7,
        difference=Difference(around(difference, by=0.01), p_value, 0.001),
        auroc=around(value),
        chance_p=chance_p,
    )


def evidence(goal: str = "auroc>=0.9", value: float = 0.7, **changes: Any) -> RunEvidence:
    """Return the evidence of a run above chance that falls short, with nothing that explains it."""
    whole = RunEvidence(
        goal=parse_goal(goal),
        run="runs/own",
        run_id="0",
        task="t",
        encoder="fake",
        head="logistic",
        value=around(value),
        met_share=0.0,
        auroc=around(value),
        chance_p=0.001,
        patients_learned=300,
        patients_evaluated=100,
        images_learned=500,
        others=(),
        points=(),
        beyond=(),
        no_curve="",
        labels=LABELS,
        calibration={"ece": around(0.1)},
        notes=(),
    )
    return replace(whole, **changes)


def asked(found: RunEvidence, **options: Any) -> Verdict:
    return decide(found, predicted_gain(found.goal, found.value.value, found.labels.ceiling), **options)


def more(times: int, reached: float) -> Beyond:
    return Beyond(
        times=times, patients=300 * times, gain=around(0.1), reached=(reached, reached - 0.1, reached + 0.1)
    )


def test_a_run_that_falls_short_for_no_cheaper_reason_is_fine_tuned() -> None:
    found = asked(evidence())
    assert found.decision is Decision.FINE_TUNE
    low, _, high = SHARES["auroc"]
    assert "auroc lacks 0.200" in found.reasons[0]
    assert f"[{0.7 + 0.3 * low:.3f}, {0.7 + 0.3 * high:.3f}]" in found.reasons[0]


@pytest.mark.parametrize(
    ("value", "words"), [(0.96, "so does the whole interval"), (0.92, "promised is auroc 0.870")]
)
def test_a_goal_that_is_reached_is_enough(value: float, words: str) -> None:
    found = asked(evidence(value=value), untrainable="no weights")
    assert found.decision is Decision.ENOUGH
    assert words in found.reasons[0]


def test_another_head_that_reaches_it_is_enough() -> None:
    found = asked(evidence(others=(beside(0.91, same=True),)))
    assert found.decision is Decision.ENOUGH
    assert "use runs/other" in found.reasons[0]


def test_smaller_may_be_better() -> None:
    assert asked(evidence("log_loss<=0.5", 0.4)).decision is Decision.ENOUGH
    assert asked(evidence("log_loss<=0.3", 0.4)).decision is Decision.FINE_TUNE


def test_labels_that_are_wrong_too_often_come_first() -> None:
    noisy = replace(LABELS, saturated=True, surest_errors=20, wrong_share=0.13, ceiling=0.87)
    found = asked(evidence(labels=noisy, others=(beside(0.95, same=False),)))
    assert found.decision is Decision.UNLIKELY
    assert "20 of 100 labels" in found.reasons[0]
    assert asked(evidence("auroc>=0.8", labels=noisy)).decision is Decision.FINE_TUNE


def test_another_encoder_comes_first_where_it_reaches_the_goal_or_is_surely_better() -> None:
    assert (
        asked(evidence(others=(beside(0.92, same=False, p_value=0.5),))).decision is Decision.ANOTHER_ENCODER
    )
    better = asked(evidence(others=(beside(0.8, same=False),)))
    assert better.decision is Decision.ANOTHER_ENCODER
    assert "better by +0.100 [+0.090, +0.110]" in better.reasons[0]
    assert asked(evidence(others=(beside(0.8, same=False, p_value=0.2),))).decision is Decision.FINE_TUNE
    # Two were tried: 2 x 0.03 is above 0.05.
    two = (beside(0.8, same=False, p_value=0.03), beside(0.6, same=False))
    assert asked(evidence(others=two)).decision is Decision.FINE_TUNE


def test_labels_that_no_head_learns_are_not_worth_it() -> None:
    chance = evidence(value=0.52, chance_p=0.3)
    found = asked(chance)
    assert found.decision is Decision.UNLIKELY
    assert "p = 0.300" in found.reasons[0]
    seen = replace(chance, others=(beside(0.6, same=False, p_value=0.3),))
    assert asked(seen).decision is Decision.FINE_TUNE
    assert asked(replace(chance, others=(beside(0.6, same=True),))).decision is Decision.FINE_TUNE


def test_more_data_come_before_a_gpu_where_they_would_do() -> None:
    found = asked(evidence(beyond=(more(2, 0.85), more(4, 0.91))))
    assert found.decision is Decision.MORE_DATA
    assert "4 x the patients (1,200)" in found.reasons[0]
    assert asked(evidence(beyond=(more(2, 0.85), more(4, 0.89)))).decision is Decision.FINE_TUNE
    assert asked(evidence(beyond=(more(8, 0.95),))).decision is Decision.FINE_TUNE


def test_an_encoder_without_weights_gives_way() -> None:
    found = asked(evidence(), untrainable="hog has no weights that could be trained")
    assert found.decision is Decision.ANOTHER_ENCODER


def test_a_goal_beyond_what_was_ever_gained_is_unlikely() -> None:
    found = asked(evidence("auroc>=0.9999", 0.55))
    assert found.decision is Decision.UNLIKELY
    assert "not auroc>=0.9999" in found.reasons[0]


def test_calibration_is_no_matter_of_an_encoder() -> None:
    assert asked(evidence("ece<=0.05", 0.1)).decision is Decision.UNLIKELY


def test_little_signal_asks_for_the_lower_blocks() -> None:
    assert recommended_method(evidence(value=0.6)) == ("lora", None)
    assert recommended_method(evidence(value=0.85)) == ("unfreeze", 2)
    assert recommended_method(evidence(value=0.6, others=(beside(0.8, same=True),))) == ("unfreeze", 2)
