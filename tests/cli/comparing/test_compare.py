"""``embed compare``: stores of two recipes in one table, and what is asked wrongly in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.main import run
from heads.runs.run_files import load_run
from tests.heads.comparing.encoder_runs import run_of, view_by


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/sharp and runs/blurred, whose stores no longer are."""
    folder = tmp_path_factory.mktemp("project")
    run_of(view_by("sharp"), folder / "runs/sharp")
    run_of(view_by("blurred", noise=2.0), folder / "runs/blurred")
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_the_best_run_comes_first_with_signed_differences_to_the_baseline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["compare", "runs/blurred", "runs/sharp", "--draws", "200"]) == 0
    printed = capsys.readouterr().out
    first, *rows = printed.splitlines()
    evaluated = load_run("runs/sharp").evaluated
    patients = len(np.unique(evaluated.patients))
    assert first == (
        f"phantom: {len(evaluated.unit_ids)} studies of {patients} patients, evaluated in every run; "
        "baseline: blurred, logistic"
    )
    sharp, blurred = rows[2], rows[3]
    assert sharp.startswith("sharp, logistic")
    assert blurred.startswith("blurred, logistic")
    assert blurred.endswith("baseline")
    assert "+0." in sharp
    assert "auroc by anatomy" in printed
    assert "auroc by age" in printed
    assert "corrected for 1 run compared" in printed


def test_machines_get_the_table_and_the_page_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "runs/sharp", "runs/blurred", "--subgroup", "anatomy", "--out", "page.html", "--json"]
    assert run(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["page"] == "page.html"
    assert [entry["name"] for entry in document["runs"]] == ["sharp, logistic", "blurred, logistic"]
    assert {cell["column"] for cell in document["subgroups"]} == {"anatomy"}
    assert "blurred, logistic" in Path("page.html").read_text()


def test_what_is_no_run_is_passed_over_and_the_baseline_joins(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/notes.txt").touch()
    assert run(["compare", "runs/sharp", "runs/notes.txt", "--baseline", "runs/blurred"]) == 0
    captured = capsys.readouterr()
    assert "passed over runs/notes.txt" in captured.err
    assert "baseline: blurred, logistic" in captured.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["runs/sharp"], 2, "runs must be two or more to be compared; found 1"),
        (["runs/sharp", "runs/blurred", "--subgroup", "age,anatomi"], 2, "--subgroup: sharp, logistic keeps no column"),
        (["runs/sharp", "runs/blurred", "--out", "no/page.html"], 2, "--out: the folder no does not exist"),
        (["runs/sharp", "runs/blurred", "--draws", "0"], 2, "draws must be 1 or more"),
        (["runs/sharp", "--baseline", "runs/gone"], 1, "runs/gone is not a run"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said_in_one_line(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *words]) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
