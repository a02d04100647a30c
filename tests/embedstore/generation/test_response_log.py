"""The file while it is written: whole lines after any end, and gone on with by the same settings only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedstore.errors import DataError, StoreBusy, UsageError
from embedstore.files import FAILPOINT_EXIT_CODE, FAILPOINT_VARIABLE
from embedstore.generation.response_log import ResponseLog
from tests.paths import PROJECT

SETTINGS = {"model_sha256": "a" * 64, "seed": 0}


def line(study: str, response: str = "é") -> dict[str, str]:
    return {"study_id": study, "response": response}


def test_lines_are_added_with_their_settings_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with ResponseLog(path, SETTINGS) as log:
        assert log.done == {}
        log.append([line("1"), line("2")])
        assert list(log.done) == ["1", "2"]
    with ResponseLog(path, SETTINGS) as log:
        log.append([line("3")])
    entries = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert entries == [{**line(study), "settings": SETTINGS} for study in "123"]


def test_a_line_that_was_not_finished_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with ResponseLog(path, SETTINGS) as log:
        log.append([line("1"), line("2")])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (first + 1, first + 20, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with ResponseLog(path, SETTINGS) as log:
            assert list(log.done) == ["1"]
            log.append([line("2")])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("failpoint", "done"), [("responses.half:2", ["1"]), ("responses.durable:2", ["1", "2"])]
)
def test_a_process_that_is_killed_leaves_whole_lines_and_half_a_line_at_most(
    tmp_path: Path, failpoint: str, done: list[str]
) -> None:
    path = tmp_path / "a.jsonl"
    program = (
        "from embedstore.generation.response_log import ResponseLog\n"
        f"with ResponseLog({str(path)!r}, {SETTINGS!r}) as log:\n"
        "    for study in '123':\n"
        "        log.append([{'study_id': study, 'response': '?'}])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {FAILPOINT_VARIABLE: failpoint},
        cwd=PROJECT,
        check=False,
    )
    assert ended.returncode == FAILPOINT_EXIT_CODE
    with ResponseLog(path, SETTINGS) as log:
        assert list(log.done) == done


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with ResponseLog(path, SETTINGS) as log:
        log.append([line("1")])
    before = path.read_bytes()
    with (
        pytest.raises(
            UsageError, match=r"line 1, was .* seed is 0 there and 1 now; slices is nothing there and 8 now"
        ),
        ResponseLog(path, {**SETTINGS, "seed": 1, "slices": "8"}),
    ):
        pass
    with (
        pytest.raises(
            UsageError, match=r"model_sha256 is aaaaaaaaaaaa there and bbbbbbbbbbbb now. Give the same ones"
        ),
        ResponseLog(path, {**SETTINGS, "model_sha256": "b" * 64}),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ['{"study_id": 1, "response": "N"}\n', "study,response\n", "notes without an end"]
)
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with (
        pytest.raises(DataError, match="line 1: must be an answer that `embed generate` wrote"),
        ResponseLog(path, {}),
    ):
        pass
    assert path.read_text() == text


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"`out`: the folder .*no does not exist"),
        ResponseLog(tmp_path / "no/a", {}),
    ):
        pass
    with pytest.raises(UsageError, match="`out` must be a file of JSON lines"), ResponseLog(tmp_path, {}):
        pass


def test_a_run_that_writes_nothing_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with ResponseLog(path, SETTINGS):
        assert path.exists()
    assert not path.exists()
    path.touch()
    with ResponseLog(path, SETTINGS):
        pass
    assert path.exists()


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    busy = "is being written by another process"
    with ResponseLog(path, SETTINGS), pytest.raises(StoreBusy, match=busy), ResponseLog(path, SETTINGS):
        pass
    with ResponseLog(path, SETTINGS):
        pass
