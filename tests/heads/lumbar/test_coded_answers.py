"""Answers as severity codes: every study whole, and read back as what was decided."""

from __future__ import annotations

from typing import Any

import pytest

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.severity_codes import read_response
from embedstore.view import MISSING
from heads.lumbar.coded_answers import coded_answer

SHARES = dict(zip(CLASSES, (0.3, 0.6, 0.1), strict=True))


def answer(**decided: str | None) -> dict[str, Any]:
    return {
        "unit_id": "44036939",
        "targets": {
            name: {"decision": decided.get(name, "Normal/Mild"), "prevalence": {"assumed": SHARES}}
            for name in TARGETS
        },
    }


def test_decisions_are_codes_and_what_has_no_image_has_none() -> None:
    line = coded_answer(answer(spinal_canal_stenosis_l4_l5="Severe", right_subarticular_stenosis_l1_l2=None))
    assert line["study_id"] == "44036939"
    assert line["response"].startswith('{"L1L2":{"canal":"N","lf":"N","rf":"N","ls":"N"},"L2L3"')
    grades = dict(zip(TARGETS, read_response(line["response"]).classes.tolist(), strict=True))
    assert {name: grade for name, grade in grades.items() if grade} == {
        "spinal_canal_stenosis_l4_l5": 2,
        "right_subarticular_stenosis_l1_l2": MISSING,
    }


def test_answers_of_another_task_are_refused() -> None:
    few = answer()
    del few["targets"][TARGETS[0]]
    with pytest.raises(UsageError, match="25 targets; found 24, and no 'spinal_canal_stenosis_l1_l2'"):
        coded_answer(few)
    with pytest.raises(UsageError, match="need the classes Normal/Mild, Moderate, Severe; found 'abnormal'"):
        coded_answer(answer(spinal_canal_stenosis_l1_l2="abnormal"))
