"""Which images speak for which of the 25 targets."""

from __future__ import annotations

from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.target_images import TARGETS_OF_CONDITIONS, rules_of_crops, rules_of_slices


def test_each_target_has_crops_of_its_own_condition_level_and_side() -> None:
    rules = rules_of_crops()
    assert list(rules) == list(TARGETS)
    assert len({rule.values for rule in rules.values()}) == 25
    assert rules["spinal_canal_stenosis_l2_l3"].values == ("canal_sagittal_t2|l2_l3|middle",)
    assert rules["left_neural_foraminal_narrowing_l1_l2"].values == ("foramen_sagittal_t1|l1_l2|left",)
    assert {rule.column for rule in rules.values()} == {"crop,level,side"}


def test_whole_slices_speak_by_plane_and_weighting() -> None:
    rules = rules_of_slices()
    assert rules["spinal_canal_stenosis_l1_l2"].values == ("sagittal T2", "axial T2")
    assert rules["right_neural_foraminal_narrowing_l5_s1"].values == ("sagittal T1",)
    assert rules["left_subarticular_stenosis_l5_s1"].values == ("axial T2",)


def test_a_condition_has_all_its_levels_and_both_sides() -> None:
    assert [len(targets) for targets in TARGETS_OF_CONDITIONS] == [5, 10, 10]
    assert sorted(target for targets in TARGETS_OF_CONDITIONS for target in targets) == sorted(TARGETS)
