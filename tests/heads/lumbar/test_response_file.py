"""Files of generated answers: a line for each study, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedstore.errors import DataError
from embedstore.lumbar.severity_codes import write_response
from embedstore.view import MISSING
from heads.lumbar.response_file import read_responses

ANSWER = write_response([0, 1, 2, 0, 0] * 5)


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "model.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def line(study: Any, response: Any, **more: Any) -> dict[str, Any]:
    return {"study_id": study, "response": response, **more}


def test_studies_are_in_the_order_of_the_file_with_their_flaws(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "\ufeff",
        line(44036939, ANSWER, seed=1),
        "\n",
        line("7", "no idea"),
        line(8, json.loads(ANSWER)),
        line(9, None),
        line(8, json.loads(ANSWER)),
    )
    found = read_responses(path)
    assert found.study_ids.tolist() == ["44036939", "7", "8", "9"]
    assert found.classes[0].tolist() == found.classes[2].tolist() == [0, 1, 2, 0, 0] * 5
    assert set(found.classes[[1, 3]].ravel().tolist()) == {MISSING}
    counts = found.counts()
    assert (counts["responses"], counts["unread_responses"]) == (4, 2)
    assert (counts["cells"], counts["unread_cells"], counts["repeated_lines"]) == (100, 50, 1)
    assert {kind: n for kind, n in counts["flaws_of_responses"].items() if n} == {"no JSON": 1, "empty": 1}
    assert found.take([3, 0]).study_ids.tolist() == ["9", "44036939"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "must hold a line such as"),
        ([line(7, ANSWER), line(7, "other")], r"line 2: a study must have one response; .* study '7' than on line 1"),
        ([line(7, ANSWER), ANSWER + "\n"], r"line 2: must be a JSON object with .* found the keys \['L1L2'"),
        (["{\n"], "line 1: must be a JSON object"),
        (["[1]\n"], r"line 1: must be a JSON object .* found \[1\]"),
        ([line(True, ANSWER)], "line 1: study_id must be text or a whole number; found True"),
        ([line(7.5, ANSWER)], "line 1: study_id must be text or a whole number; found 7.5"),
        ([line(" ", ANSWER)], "line 1: study_id must be text or a whole number"),
    ],
)  # fmt: skip
def test_lines_that_are_no_answers_are_refused(tmp_path: Path, lines: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_responses(written(tmp_path, *lines))


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no such file"):
        read_responses(tmp_path / "gone.jsonl")
    (tmp_path / "model.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="found other bytes"):
        read_responses(tmp_path / "model.jsonl")
