"""Stages are told to whoever watches, nested as they are open, and cost nothing where nobody does."""

from __future__ import annotations

import pytest

from heads.stages import Stage, counted, stage, watched
from tests.views import make_view, probed


def test_stages_are_told_with_those_around_them() -> None:
    seen: list[str] = []
    with watched(lambda stages: seen.append(" > ".join(map(str, stages)))), stage("head", 2, 6):
        for letter in counted("fold", ["a", "b"]):
            with stage(f"fit {letter}"):
                pass
        with stage("calibration"):
            pass
    assert seen == [
        "head 2 of 6",
        "head 2 of 6 > fold 1 of 2",
        "head 2 of 6 > fold 1 of 2 > fit a",
        "head 2 of 6 > fold 2 of 2",
        "head 2 of 6 > fold 2 of 2 > fit b",
        "head 2 of 6 > calibration",
    ]


def test_a_loop_that_is_left_early_and_an_error_close_their_stages() -> None:
    seen: list[tuple[Stage, ...]] = []
    with watched(seen.append):
        for _ in counted("epoch", range(9)):
            break
        with pytest.raises(ValueError, match="no"), stage("outer"), stage("inner"):
            raise ValueError("no")
        with stage("after"):
            pass
    assert seen[-1] == (Stage("after"),)
    with stage("unseen"):
        pass
    assert len(seen) == 4


@pytest.mark.parametrize("head", ["knn", "logistic"])
def test_a_probe_names_its_stages_in_order(head: str) -> None:
    seen: list[str] = []
    with watched(lambda stages: seen.append(str(stages[0]))):
        probed(make_view(patients=60, valid_share=0), head, draws=5, folds=3)
    steps = list(dict.fromkeys(seen))
    assert steps == [
        "selection",
        "fit on all",
        "calibration",
        "distances between patients",
        "outer fold 1 of 3",
        "outer fold 2 of 3",
        "outer fold 3 of 3",
        "intervals, 5 draws of patients",
    ]
