"""``embed compare --responses``: generated answers beside a run, and what is asked wrongly in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.main import run
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.lumbar.severity_codes import write_response
from heads.runs.run_files import load_run
from tests.heads.comparing.encoder_runs import run_of, view_by
from tests.views import make_view

FIVE = TARGETS[:5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/lumbar (of five targets), runs/other (of another task) and model.jsonl."""
    folder = tmp_path_factory.mktemp("project")
    of_lumbar = run_of(
        make_view(patients=60, classes=CLASSES, targets=FIVE, signal=2.0), folder / "runs/lumbar"
    )
    run_of(view_by("other"), folder / "runs/other")
    studies = of_lumbar.evaluated.unit_ids.tolist()
    texts = ["No answer.", *[write_response([0, 1, 2, 1, 0] * 5)] * (len(studies) - 1)]
    (folder / "model.jsonl").write_text(
        "".join(
            json.dumps({"study_id": study, "response": text}) + "\n"
            for study, text in zip(studies, texts, strict=True)
        )
    )
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_rows_conditions_and_flaws_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "runs/lumbar", "--responses", "model.jsonl", "--draws", "50"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    n = len(load_run("runs/lumbar").evaluated.unit_ids)
    assert lines[0].startswith(f"phantom: {n} studies of ")
    assert f", {5 * n} labelled cells; baseline: fake, logistic" in lines[0]
    rows = [line.split("  ")[0] for line in lines[3:7]]
    assert rows == ["fake, logistic", "model", "model, unread cells left out", "the prior, no image"]
    assert lines[3].endswith("baseline")
    assert "spinal canal stenosis" in lines
    assert "left neural foraminal narrowing" not in lines
    # Without all 25 targets there is no RSNA score.
    assert "RSNA score" not in printed
    assert f"model.jsonl: {n} responses, 1 unread; 25 of {25 * n} cells unread" in printed
    assert "flaws: 1 x no JSON" in printed


def test_machines_get_the_table_and_the_page_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "runs/lumbar", "--responses", "model.jsonl", "--out", "page.html", "--json"]
    assert run([*words, "--draws", "20", "--subgroup", "age"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["page"] == "page.html"
    assert [row["kind"] for row in document["rows"]] == ["run", "responses", "responses", "prior"]
    assert document["responses"][0]["flaws_of_responses"]["no JSON"] == 1
    assert "model, unread cells left out" in Path("page.html").read_text()
    assert captured.err == "--subgroup has no part beside --responses: results are split by condition\n"


def test_probabilities_behind_codes_are_printed_beside_those_of_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    slots = {target: [0.25, 0.5, 0.25] for target in TARGETS}
    lines = [
        json.loads(line) | {"slot_probabilities": slots}
        for line in Path("model.jsonl").read_text().splitlines()
    ]
    Path("slots.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(["compare", "runs/lumbar", "--responses", "slots.jsonl", "--draws", "20"]) == 0
    printed = capsys.readouterr().out.splitlines()
    # By hand: -log 0.5 where it was moderate, -log 0.25 elsewhere.
    at = next(at for at, line in enumerate(printed) if line.startswith("probabilities of"))
    assert [line.split("  ")[0] for line in printed[at + 1 : at + 4]] == [
        "fake, logistic",
        "slots",
        "the prior, no image",
    ]
    y = load_run("runs/lumbar").evaluated.y
    assert f"{np.where(y == 1, np.log(2), np.log(4)).mean():.3f} [" in printed[at + 2]
    at = printed.index(next(line for line in printed if line.startswith("all cells together")))
    assert printed[at + 2].endswith(
        f"severe 0.250, observed {(y == 2).mean():.3f}; moderate or severe 0.750, observed {(y >= 1).mean():.3f}"
    )


MODEL = ["--responses", "model.jsonl"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["runs/other", *MODEL], 2, "--responses are severity codes of the RSNA 2024 lumbar targets"),
        (["runs/lumbar", "--responses", "gone.jsonl"], 1, "gone.jsonl must be a file of JSON lines in UTF-8"),
        (["runs/lumbar", *MODEL, "--out", "no/page.html"], 2, "--out: the folder no does not exist"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *words]) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
