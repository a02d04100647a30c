"""Files of generated answers: a line for each study, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedstore.errors import DataError
from embedstore.lumbar.levels import TARGETS
from embedstore.lumbar.severity_codes import write_response
from embedstore.view import MISSING
from heads.lumbar.response_file import read_responses

ANSWER = write_response([0, 1, 2, 0, 0] * 5)
SLOTS = {target: [0.5, 0.25, 0.25] for target in TARGETS}


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


def with_slots(of_first: list[Any]) -> dict[str, Any]:
    return line(7, ANSWER, slot_probabilities=SLOTS | {TARGETS[0]: of_first})


def test_probabilities_stand_beside_the_codes_and_sum_to_one_again(tmp_path: Path) -> None:
    rounded = line(7, ANSWER, slot_probabilities=SLOTS | {TARGETS[24]: [0.3333, 0.3333, 0.3333]})
    found = read_responses(
        written(tmp_path, rounded, rounded, line(8, ANSWER), line(9, "", slot_probabilities=None))
    )
    assert found.has_probabilities.tolist() == [True, False, False]
    assert found.probabilities is not None
    assert found.probabilities[0, :24].tolist() == [[0.5, 0.25, 0.25]] * 24
    assert found.probabilities[0, 24] == pytest.approx([1 / 3] * 3, abs=1e-12)
    assert (found.counts()["responses_with_probabilities"], found.repeated) == (1, 1)
    assert found.take([1]).has_probabilities.tolist() == [False]
    without = read_responses(written(tmp_path, line(8, ANSWER)))
    assert without.probabilities is None
    assert without.counts()["responses_with_probabilities"] == 0


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
        ([with_slots([0.5, 0.5])], r"line 1: slot_probabilities must give each .* found \[0.5, 0.5\] for spinal_canal"),
        ([with_slots([0.5, 0.5, 0.5])], r"which sum to 1; found \[0.5, 0.5, 0.5\]"),
        ([with_slots([1.5, -0.5, 0])], r"found \[1.5, -0.5, 0\]"),
        ([with_slots(["1", 0, 0])], r"found \['1', 0, 0\]"),
        ([line(7, ANSWER, slot_probabilities={"canal": [1, 0, 0]})], "found no 'spinal_canal_stenosis_l1_l2'"),
        ([line(7, ANSWER, slot_probabilities=SLOTS | {"l6": [1, 0, 0]})], "found also 'l6'"),
        ([line(7, ANSWER, slot_probabilities=[1, 0, 0])], r"found \[1, 0, 0\]"),
        (
            [line(7, ANSWER, slot_probabilities=SLOTS), line(7, ANSWER)],
            r"line 2: a study must have one response; .* study '7' than on line 1",
        ),
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
