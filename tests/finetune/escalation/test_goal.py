"""Goals are read, and those that say something else than was meant are refused with the grammar."""

from __future__ import annotations

import pytest

from embedstore.errors import UsageError
from finetune.escalation.goal import Goal, parse_goal


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("kappa>=0.75", Goal(metric="kappa", operator=">=", number=0.75)),
        (" auroc > .9 ", Goal(metric="auroc", operator=">", number=0.9)),
        ("log_loss<=4e-1", Goal(metric="log_loss", operator="<=", number=0.4)),
        ("left side: ece < 0.05", Goal(metric="ece", operator="<", number=0.05, target="left side")),
        ("a:b:f1>=0.5", Goal(metric="f1", operator=">=", number=0.5, target="a:b")),
    ],
)
def test_a_goal_is_read(text: str, goal: Goal) -> None:
    assert parse_goal(text) == goal
    assert parse_goal(str(goal)) == goal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("good", r"cannot be read: found 'good'; a goal is \[TARGET:\]METRIC"),
        ("kappa=0.75", "cannot be read"),
        ("kappa>", "cannot be read"),
        ("kappa>=high", "'high' is no number; a goal is"),
        ("kappa>=nan", "'nan' is no number"),
        ("kapa>=0.7", "found 'kapa'. Did you mean 'kappa'.*; a goal is"),
        ("kappa<=0.7", "kappa is better when larger; write kappa>=0.7"),
        ("log_loss>0.4", "log_loss is better when smaller; write log_loss<=0.4"),
        ("calibration_slope>=1", "best near 1, on neither side"),
        ("auroc>=75", "auroc is 1 at most; found 75: 75 % is 0.75"),
        ("auroc>1", "no auroc lies beyond 1"),
        ("brier<0", "no brier lies beyond 0"),
        ("brier<=-1", "brier is 0 at least; found -1"),
    ],
)
def test_what_is_no_goal_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_goal(text)


def test_a_limit_is_met_at_itself_only_where_equality_counts() -> None:
    assert parse_goal("kappa>=0.5").is_met(0.5)
    assert not parse_goal("kappa>0.5").is_met(0.5)
    assert parse_goal("log_loss<=0.5").is_met(0.5)
    assert not parse_goal("log_loss<0.5").is_met(0.5)
    assert parse_goal("log_loss<0.5").is_met(0.4)
    assert not parse_goal("kappa>=0.5").is_met(float("nan"))


def test_better_is_up_or_down() -> None:
    assert parse_goal("kappa>=0.5").better_by(0.4, 0.1) == pytest.approx(0.5)
    assert parse_goal("log_loss<=0.5").better_by(0.6, 0.1) == pytest.approx(0.5)
