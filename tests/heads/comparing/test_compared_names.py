"""What runs are called side by side."""

from __future__ import annotations

from dataclasses import replace

from heads.comparing.compared_names import compared_names, encoder_differences, encoder_names
from heads.runs.run import Run
from tests.heads.comparing.encoder_runs import documented


def test_runs_are_called_by_encoder_and_head(sharp: Run, blurred: Run) -> None:
    assert compared_names([sharp, blurred]) == ["sharp, logistic", "blurred, logistic"]


def test_a_preset_stands_for_its_head_and_few_cases_are_said(sharp: Run) -> None:
    preset = documented(sharp, "settings", preset="fewshot-48", shots=48)
    few = documented(sharp, "settings", shots=16)
    assert compared_names([sharp, preset, few]) == [
        "sharp, logistic",
        "sharp, fewshot-48",
        "sharp, logistic, 16 cases",
    ]


def test_two_recipes_of_one_encoder_have_digits_of_their_identities(sharp: Run, blurred: Run) -> None:
    other = replace(sharp, identity=replace(sharp.identity, revision="2", compute_dtype="float16"))
    one, two, three = encoder_names([sharp, other, blurred])
    assert (one, two) == (f"sharp {sharp.identity.sha256[:6]}", f"sharp {other.identity.sha256[:6]}")
    assert three == "blurred"
    (line,) = encoder_differences([sharp, other, blurred], 0)
    assert line.startswith(f"{two} differs from {one} in ")
    assert "revision ('2', not '1')" in line
    assert encoder_differences([sharp, blurred], 0) == []


def test_runs_that_are_still_alike_have_their_folders(sharp: Run) -> None:
    moved = replace(sharp, folder=sharp.folder.with_name("again"))
    deeper = replace(sharp, folder=sharp.folder / "again")
    assert compared_names([sharp, moved]) == ["sharp, logistic (sharp-logistic)", "sharp, logistic (again)"]
    assert compared_names([moved, deeper]) == [
        f"sharp, logistic (again) {moved.folder}",
        f"sharp, logistic (again) {deeper.folder}",
    ]
