"""Generated text as 25 classes: what is read in spite of a flaw, and what cannot be."""

from __future__ import annotations

import json

import pytest

from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.severity_codes import read_response, write_response
from embedstore.view import MISSING

# By hand: severe canal at L1/L2, moderate left foramen at L4/L5, severe right recess at L5/S1, all else normal.
ANSWER = (
    '{"L1L2":{"canal":"S","lf":"N","rf":"N","ls":"N","rs":"N"},"L2L3":{"canal":"N","lf":"N","rf":"N","ls":"N","rs":"N"},'
    '"L3L4":{"canal":"N","lf":"N","rf":"N","ls":"N","rs":"N"},"L4L5":{"canal":"N","lf":"M","rf":"N","ls":"N","rs":"N"},'
    '"L5S1":{"canal":"N","lf":"N","rf":"N","ls":"N","rs":"S"}}'
)
GRADES = {
    "spinal_canal_stenosis_l1_l2": 2,
    "left_neural_foraminal_narrowing_l4_l5": 1,
    "right_subarticular_stenosis_l5_s1": 2,
}
CLASSES = [GRADES.get(target, 0) for target in TARGETS]


def test_codes_are_the_targets_classes_and_are_written_byte_for_byte() -> None:
    found = read_response(ANSWER)
    assert found.classes.tolist() == CLASSES
    assert found.flaws == {}
    assert write_response(CLASSES) == ANSWER


@pytest.mark.parametrize(
    ("text", "flaws"),
    [
        (f"Here it is:\n```json\n{ANSWER}\n```", {"text around the JSON": 1}),
        (f" \n{ANSWER}\n", {}),
        (ANSWER.lower().replace("l1l2", "L1L2").replace("l2l3", "L2L3").replace("l3l4", "L3L4")
         .replace("l4l5", "L4L5").replace("l5s1", "L5S1"), {"lower-case code": 25}),
        (f'{{"thought": "L1"}} {ANSWER} {ANSWER}', {"text around the JSON": 1, "several answers, the first taken": 1}),
        (f"{{draft}} {ANSWER}", {"text around the JSON": 1}),
        (ANSWER.replace('{"L1L2"', '{"note":"","L1L2"'), {"unknown key": 1}),
        (ANSWER.replace('"canal":"S"', '"canal":"N","canal":" S "'), {"repeated key, the last taken": 1}),
    ],
)  # fmt: skip
def test_flaws_that_leave_the_answer_readable_are_counted(text: str, flaws: dict[str, int]) -> None:
    found = read_response(text)
    assert found.classes.tolist() == CLASSES
    assert found.flaws == flaws


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I cannot help with medical images.", "no JSON"),
        ("[1, 2]", "no JSON"),
        (ANSWER[:-30], "broken JSON"),
        (ANSWER.replace('"', "'"), "broken JSON"),
        ('{"L1/L2": {"canal": "N"}}', "no key of a level"),
        ('{"a":' * 5000, "broken JSON"),
    ],
)
def test_what_leaves_nothing_to_read_has_its_kind(text: str, kind: str) -> None:
    found = read_response(text)
    assert set(found.classes.tolist()) == {MISSING}
    assert found.flaws == {kind: 1}


def test_cells_that_cannot_be_read_are_missing_and_no_others() -> None:
    answer = json.loads(ANSWER)
    del answer["L2L3"]
    del answer["L3L4"]["rf"]
    answer["L1L2"]["spinal"] = "N"
    answer["L4L5"] |= {"canal": "Severe", "lf": None, "ls": 1}
    found = read_response(json.dumps(answer))
    assert found.flaws == {
        "no key of the level": 5,
        "no key of the condition": 1,
        "unknown key": 1,
        "unknown code": 3,
    }
    unread = {target for target in TARGETS if target.endswith("l2_l3")} | {
        "right_neural_foraminal_narrowing_l3_l4",
        "spinal_canal_stenosis_l4_l5",
        "left_neural_foraminal_narrowing_l4_l5",
        "left_subarticular_stenosis_l4_l5",
    }
    expected = [
        MISSING if target in unread else grade for target, grade in zip(TARGETS, CLASSES, strict=True)
    ]
    assert found.classes.tolist() == expected
