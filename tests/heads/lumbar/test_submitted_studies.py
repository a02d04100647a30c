"""Answers as a submission: every study whole, corrected for the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from heads.lumbar.submission import read_submission
from heads.lumbar.submitted_studies import SubmittedStudies

SHARES = dict(zip(CLASSES, (0.75, 0.15, 0.1), strict=True))


def answer(study: str, severe: float, **changes: Any) -> dict[str, Any]:
    said = dict(zip(CLASSES, (0.9 - severe, 0.1, severe), strict=True))
    of_target = {"probabilities": said, "prevalence": {"source": "training", "assumed": SHARES}}
    return {"unit_id": study, "targets": {name: dict(of_target) for name in TARGETS}} | changes


def test_answers_become_rows_times_1_2_4(tmp_path: Path) -> None:
    studies = SubmittedStudies()
    studies.add([answer("20", 0.2)])
    studies.add([answer("3", 0.4)])
    assert not list(tmp_path.iterdir())
    studies.write(tmp_path / "s.csv")
    found = read_submission(tmp_path / "s.csv")
    assert found.study_ids.tolist() == ["3", "20"]
    weighted = np.array([0.7, 0.2, 0.8])
    assert np.allclose(found.probabilities[1], weighted / weighted.sum(), atol=1e-12)


def test_a_target_without_an_image_is_answered_by_its_prevalence(tmp_path: Path) -> None:
    silent = answer("7", 0.2)
    silent["targets"][TARGETS[3]]["probabilities"] = None
    studies = SubmittedStudies()
    studies.add([silent])
    studies.write(tmp_path / "s.csv")
    weighted = np.array([0.75, 0.3, 0.4])
    assert np.allclose(read_submission(tmp_path / "s.csv").probabilities[0, 3], weighted / weighted.sum())


def test_answers_of_another_task_are_refused() -> None:
    few = answer("1", 0.2)
    del few["targets"][TARGETS[0]]
    with pytest.raises(
        UsageError, match=r"found 24 targets, classes .*, and no 'spinal_canal_stenosis_l1_l2'"
    ):
        SubmittedStudies().add([few])
    other = {"prevalence": {"assumed": {"normal": 0.5, "abnormal": 0.5}}, "probabilities": None}
    with pytest.raises(UsageError, match="found 1 targets, classes normal, abnormal, and no"):
        SubmittedStudies().add([{"unit_id": "1", "targets": {"abnormal": other}}])
