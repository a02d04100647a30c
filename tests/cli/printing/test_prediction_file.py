"""Answers as files: what stands in each form, and that a file is there whole or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cli.printing.prediction_file import compact, open_predictions, require_prediction_file
from embedstore.errors import UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS

PREVALENCE = {"source": "given", "assumed": {"no, none": 0.75, "yes": 0.25}}


def answer(unit: str, yes: float, *, silent: bool = False) -> dict[str, Any]:
    found = {
        "probabilities": None if silent else {"no, none": 1 - yes, "yes": yes},
        "decision": None if silent else "yes",
        "threshold": 0.5,
        "conformal_set": None if silent else ["no, none", "yes"],
        "prevalence": PREVALENCE,
    }
    return {
        "unit_id": unit,
        "path": f"data/{unit}/1.png",
        "image_id": None,
        "images": 2,
        "partial": False,
        "learned_from": True,
        "targets": {"left": found, "right": found},
        "ood_p_value": {"knn": 0.123456},
        "unlike_training": False,
        "run_id": "abc",
        "neighbors": [],
    }


def test_a_table_for_a_spreadsheet_has_a_row_per_unit_and_target(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    with open_predictions(path) as write:
        write([answer("é", 0.123456789)])
        write([answer("b", 0.5, silent=True)])
        assert not path.exists()
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["unit_id"], row["target"]) for row in rows] == [
        ("é", "left"), ("é", "right"), ("b", "left"), ("b", "right"),
    ]  # fmt: skip
    assert rows[0]["prob_yes"] == "0.123456789"
    assert rows[0]["prevalence_no, none"] == "0.75"
    assert rows[0]["conformal_set"] == "no, none|yes"
    assert (rows[0]["learned_from"], rows[0]["partial"], rows[0]["image_id"]) == ("true", "false", "")
    assert (rows[2]["prob_yes"], rows[2]["decision"], rows[2]["conformal_set"]) == ("", "", "")
    assert list(tmp_path.iterdir()) == [path]


def test_the_image_that_had_most_to_say_has_two_columns(tmp_path: Path) -> None:
    heard, silent = answer("a", 0.5), answer("b", 0.5, silent=True)
    weights = [{"image": "2.png", "weight": 0.75}, {"image": "1.png", "weight": 0.25}]
    heard["targets"] = {"left": {**heard["targets"]["left"], "image_weights": weights}}
    silent["targets"] = {"left": {**silent["targets"]["left"], "image_weights": []}}
    with open_predictions(tmp_path / "answers.parquet") as write:
        write([heard, silent])
    rows = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [(row["heaviest_image"], row["image_weight"]) for row in rows] == [("2.png", 0.75), (None, None)]


def test_compact_tables_keep_what_one_looks_at_first(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet"):
        with open_predictions(tmp_path / name, "compact") as write:
            write([answer("a", 0.123456789)])
    (row, _) = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert row == {
        "unit_id": "a",
        "path": "data/a/1.png",
        "target": "left",
        "prob_no, none": 0.8765,
        "prob_yes": 0.1235,
        "decision": "yes",
        "conformal_set": ["no, none", "yes"],
        "unlike_training": False,
    }
    header = (tmp_path / "a.csv").read_text().splitlines()[0]
    assert header == 'unit_id,path,target,"prob_no, none",prob_yes,decision,conformal_set,unlike_training'


def test_a_compact_line_is_short_and_rounded() -> None:
    short = compact(answer("a", 0.123456789))
    one = {
        "probabilities": {"no, none": 0.8765, "yes": 0.1235},
        "decision": "yes",
        "set": ["no, none", "yes"],
    }
    assert short == {
        "unit": "a",
        "path": "data/a/1.png",
        "targets": {"left": one, "right": one},
        "unlike_training": False,
    }


def test_lines_go_to_stdout_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    with open_predictions("-") as write:
        write([answer("a", 0.5)])
        assert json.loads(capsys.readouterr().out)["unit_id"] == "a"


def test_a_file_is_not_left_half_written(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("before")
    with pytest.raises(KeyError, match="targets"), open_predictions(path, "compact") as write:
        write([answer("a", 0.5), {"unit_id": "b", "path": "p"}])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_answers_has_a_known_ending() -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet", "-"):
        require_prediction_file(name)
    with pytest.raises(
        UsageError, match=r"\.jsonl, \.csv, \.parquet, or the name - for stdout; found '\.xlsx'"
    ):
        require_prediction_file("answers.xlsx")


def test_codes_are_lines_with_the_answer_as_a_generative_model_prints_it(tmp_path: Path) -> None:
    for path in ("codes.csv", "codes.parquet"):
        with pytest.raises(UsageError, match=f"--out codes.jsonl; found --out {path}"):
            require_prediction_file(path, "codes")
    of_target = {"decision": "Moderate", "prevalence": {"assumed": dict.fromkeys(CLASSES, 1 / 3)}}
    path = tmp_path / "codes.jsonl"
    with open_predictions(path, "codes") as write:
        write([{"unit_id": "44036939", "targets": dict.fromkeys(TARGETS, of_target)}])
    level = '{"canal":"M","lf":"M","rf":"M","ls":"M","rs":"M"}'
    levels = ",".join(f'"{name}":{level}' for name in ("L1L2", "L2L3", "L3L4", "L4L5", "L5S1"))
    assert json.loads(path.read_text()) == {"study_id": "44036939", "response": "{" + levels + "}"}


def test_a_submission_is_a_csv_file_of_the_competition(tmp_path: Path) -> None:
    for path in ("-", "answers.jsonl"):
        with pytest.raises(UsageError, match=f"--out submission.csv; found --out {path}"):
            require_prediction_file(path, "submission")
    of_target = {
        "probabilities": dict(zip(CLASSES, (0.5, 0.25, 0.25), strict=True)),
        "prevalence": {"source": "training", "assumed": dict.fromkeys(CLASSES, 1 / 3)},
    }
    path = tmp_path / "submission.csv"
    with open_predictions(path, "submission") as write:
        write([{"unit_id": "44036939", "targets": dict.fromkeys(TARGETS, of_target)}])
        assert not path.exists()
    lines = path.read_text().splitlines()
    assert lines[0] == "row_id,normal_mild,moderate,severe"
    assert lines[1] == "44036939_left_neural_foraminal_narrowing_l1_l2,0.25,0.25,0.5"
    assert len(lines) == 1 + 25
    refused = pytest.raises(UsageError, match="needs a run of the competition's 25 targets")
    with refused, open_predictions(tmp_path / "no.csv", "submission") as write:
        write([answer("a", 0.5)])
    assert not (tmp_path / "no.csv").exists()
