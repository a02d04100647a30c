"""Answers from Python: a study's folder and the store agree, cases come with them, and failures are named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.jobs.open_probe import ProbeJob
from cli.jobs.predict_inputs import NEAREST, PredictOptions, predict_inputs
from cli.jobs.probe_store import probe_store
from embedstore.errors import UsageError
from embedstore.store.reader import open_store
from heads.protocol.options import ProbeOptions


@pytest.fixture(scope="package")
def probed(phantom: Path) -> Path:
    options = ProbeOptions(preset="google-lr", draws=20)
    return probe_store(ProbeJob(stores=[phantom / "mura.store"], options=options, out=phantom / "run")).folder


@pytest.fixture
def study(phantom: Path) -> Path:
    return next(path for path in sorted((phantom / "MURA-v1.1/valid").glob("XR_*/patient*/study*")))


def _of(answers: Any, unit_id: str) -> dict[str, Any]:
    return next(answer for answer in answers.units if answer["unit_id"] == unit_id)


def test_a_folder_gets_the_answer_of_the_same_study_in_the_store(
    phantom: Path, probed: Path, store: Path, study: Path
) -> None:
    files = predict_inputs(str(probed), [str(study)])
    whole = predict_inputs(probed, [store])
    own = study.relative_to(phantom / "MURA-v1.1").as_posix()
    assert len(files.units) == 1
    assert files.units[0]["targets"] == _of(whole, own)["targets"]
    assert files.failed == []
    assert not any("neighbors" in answer for answer in [*files.units, *whole.units])


def test_files_come_with_the_usual_number_of_cases_of_other_patients(
    probed: Path, store: Path, study: Path
) -> None:
    cases = predict_inputs(probed, [study], PredictOptions(cases=store)).units[0]["neighbors"]
    assert len(cases) == NEAREST
    assert not any(study.parent.name in case["unit_id"] for case in cases)
    none = predict_inputs(probed, [study], PredictOptions(cases=store, neighbors=0))
    assert "neighbors" not in none.units[0]


def test_a_store_that_is_answered_for_and_searched_is_opened_once(
    probed: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def opens(path: Path) -> Any:
        opened.append(path)
        return open_store(path)

    monkeypatch.setattr("cli.studying.openings.open_store", opens)
    quiet = predict_inputs(probed, [store], PredictOptions(cases=store))
    asked = predict_inputs(probed, [store], PredictOptions(cases=store, neighbors=1))
    assert len(opened) == 2
    assert "neighbors" not in quiet.units[0]
    assert all(len(answer["neighbors"]) == 1 for answer in asked.units)


def test_a_store_of_another_kind_is_an_error_or_left_out_of_account(
    probed: Path, store: Path, study: Path
) -> None:
    shutil.copytree(store, "unlabelled.store")
    shutil.rmtree("unlabelled.store/tasks")
    with pytest.raises(UsageError, match=r"unlabelled.store has no task 'abnormal'"):
        predict_inputs(probed, [study], PredictOptions(cases="unlabelled.store"))
    for place in ("unlabelled.store", "nowhere.store"):
        options = PredictOptions(cases=place, cases_must_fit=False)
        assert "neighbors" not in predict_inputs(probed, [study], options).units[0]


def test_images_without_a_vector_are_named_and_pending_ones_said(
    probed: Path, store: Path, study: Path
) -> None:
    Path("broken.png").write_bytes(b"no picture")
    answers = predict_inputs(probed, [study, "broken.png"])
    assert len(answers.units) == 1
    assert len(answers.failed) == 1
    assert "broken.png: " in answers.failed[0]
    shutil.copytree(store, "half.store")
    Path("half.store/parts/0000/receipts/000000.json").unlink()
    said: list[str] = []
    assert predict_inputs(probed, ["half.store"], notify=said.append).units == []
    assert len(said) == 1
    assert "images pending" in said[0]


def test_metadata_that_the_head_does_not_get_is_refused(probed: Path, study: Path) -> None:
    with pytest.raises(UsageError, match=r"--with anatomy=XR_HAND: the head of run .* gets no metadata"):
        predict_inputs(probed, [study], PredictOptions(metadata={"anatomy": "XR_HAND"}))
