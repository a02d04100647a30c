"""``embed escalate``: the answer in words, as JSON beside the run, and as an exit code; wrong goals in one line."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.exit_codes import ANOTHER_ENCODER, DONE, FINE_TUNE, UNLIKELY, WRONG_USAGE
from cli.main import cli, run
from heads.runs.run import Run

PROBE = ["escalate", "--probe", "runs/own", "--no-beside"]


@pytest.fixture(autouse=True)
def inside(escalated_runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the runs, in runs/ of the current folder."""
    shutil.copytree(escalated_runs["own"].folder.parent, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)


def test_the_answer_is_said_kept_and_coded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PROBE, "--goal", "auroc>=0.97"]) == FINE_TUNE
    first, _, reason, *rest = capsys.readouterr().out.splitlines()
    assert first == "auroc>=0.97: fine-tune"
    assert reason.startswith("auroc lacks 0.")
    printed = "\n".join(rest)
    assert (
        "embed finetune --task phantom --encoder FOLDER_OF_fake --method unfreeze --blocks 2 --out "
        in printed
    )
    assert (
        "hours, memory and disk: not known, the checkpoint of fake has no registered name: --encoder says"
        in printed
    )
    assert rest[-1] == "kept in runs/own/escalation.json"
    kept = json.loads(Path("runs/own/escalation.json").read_text())
    assert kept["decision"] == "fine-tune"
    assert kept["reasons"][0] == reason
    assert kept["evidence"]["run_id"] == json.loads(Path("runs/own/run.json").read_text())["run_id"][:12]


def test_machines_get_the_same_and_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PROBE, "--goal", "auroc >= 0.6", "--json", "--out", "answer.json"]) == DONE
    document = json.loads(capsys.readouterr().out)
    assert (document["decision"], document["exit_code"], document["file"]) == (
        "enough already",
        0,
        "answer.json",
    )
    assert document["evidence"]["value"] == pytest.approx(document["evidence"]["auroc"])
    assert {key: document[key] for key in json.loads(Path("answer.json").read_text())} == json.loads(
        Path("answer.json").read_text()
    )


def test_runs_beside_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["escalate", "--probe", "runs/own", "--goal", "auroc>=0.97"]) == ANOTHER_ENCODER
    printed = capsys.readouterr().out
    assert "sharper, logistic reaches auroc>=0.97: auroc 0." in printed
    assert "note: " in printed  # of the other studies
    assert run([*PROBE, "--goal", "auroc>=0.97", "--other", "runs/sharper"]) == ANOTHER_ENCODER


def test_an_encoder_that_sees_nothing_is_not_worth_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["escalate", "--probe", "runs/nothing", "--no-beside", "--goal", "auroc>=0.9"]) == UNLIKELY
    assert "the head is not shown to be better than chance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--goal", "good"], "Error: --goal cannot be read: found 'good'; a goal is [TARGET:]METRIC"),
        (["--goal", "wrist:auroc>=0.9"], "the run has no target 'wrist'"),
        (["--goal", "auroc>=0.9", "--learning-curve"], "--learning-curve needs the run's store"),
        (["--goal", "auroc>=0.9", "--encoder", "gone"], "--encoder must be one of"),
        (["--goal", "auroc>=0.9", "--out", "gone/a.json"], "--out: the folder gone does not exist"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*PROBE, *words]) == WRONG_USAGE
    assert why in capsys.readouterr().err


def test_the_line_that_is_printed_is_one_of_finetune(capsys: pytest.CaptureFixture[str]) -> None:
    run([*PROBE, "--goal", "finding:auroc>=0.97", "--json"])
    words = shlex.split(json.loads(capsys.readouterr().out)["recommendation"]["command"])
    assert words[:2] == ["embed", "finetune"]
    command = cli.get_command(None, "finetune")  # type: ignore[arg-type]
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_help_names_every_exit_code() -> None:
    text = CliRunner().invoke(cli, ["escalate", "--help"]).output
    for code in ("(exit code 0)", "first (10)", "(11)", "(12)", "help (13)"):
        assert code in text
