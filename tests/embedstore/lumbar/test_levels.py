"""The competition's names: 25 targets, each in one scored condition."""

from __future__ import annotations

from collections import Counter

from embedstore.lumbar.levels import SCORED_CONDITIONS, TARGETS, scored_condition


def test_each_target_counts_in_one_condition_and_both_sides_in_the_same() -> None:
    assert Counter(map(scored_condition, TARGETS)) == {"spinal": 5, "foraminal": 10, "subarticular": 10}
    assert tuple(dict.fromkeys(map(scored_condition, TARGETS))) == SCORED_CONDITIONS
