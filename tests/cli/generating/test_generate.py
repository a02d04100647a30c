"""``embed generate``: what it prints, how it goes on, what it comes to, and what is asked wrongly in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.main import run
from tests.embedstore.generation.conftest import answering, lumbar_store

__all__ = ["answering", "lumbar_store"]


@pytest.fixture
def inside(lumbar_store: Path, answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with lumbar.store beside its files, and the model."""
    folder = tmp_path / "project"
    shutil.copytree(lumbar_store.parent, folder)
    (folder / "tiny-it").symlink_to(answering)
    # What is probed here is another store's, and says nothing about who is asked.
    (folder / "embed.toml").write_text('task = "abnormal"\nstore = "lumbar.store"\nbatch_size = 64\n')
    monkeypatch.chdir(folder)
    return folder


QUICK = ["--max-new-tokens", "3", "--device", "cpu", "--dtype", "float32", "--workers", "1"]
ASKED = ["generate", "--model", "tiny-it", "--out", "a.jsonl", *QUICK]


def test_studies_are_answered_gone_on_with_and_refused_for_another_prompt(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*ASKED, "--limit", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "a.jsonl: 1 of 1 study answered",
        "  1 answer cut off at the token limit: --max-new-tokens raises it, in a new file",
        "Next: embed compare RUN --responses a.jsonl",
    ]
    assert "1 of 1 study, " in captured.err
    assert "1 cut off at the token limit" in captured.err
    assert run([*ASKED, "--limit", "2", "--images", "2", "--json"]) == 2
    assert (
        "slices is sagittal-t2=1,sagittal-t1=2,axial-t2=5 there and sagittal-t2=1,axial-t2=1 now"
        in (json.loads(capsys.readouterr().out)["error"])
    )
    Path("prompt.txt").write_text("{count} of {views}?")
    assert run([*ASKED, "--prompt", "prompt.txt"]) == 2
    assert "Give the same ones to go on, or name another --out" in capsys.readouterr().err
    assert run([*ASKED, "--limit", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["before"], document["answered"], document["studies"]) == (1, 1, 2)
    assert not document["stopped"]
    assert len(Path("a.jsonl").read_text().splitlines()) == 2


def test_a_study_without_an_image_is_told_in_the_exit_code(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["--images", "axial-t2=1", "--limit", "1"]
    assert run([*ASKED, *shown, "--out", "b.jsonl"]) == 0
    (line,) = map(json.loads, Path("b.jsonl").read_text().splitlines())
    next(inside.glob(f"rsna*/{line['images'][0]}")).unlink()
    capsys.readouterr()
    assert run([*ASKED, *shown, "--out", "c.jsonl"]) == 3
    assert (
        "1 study without an image: an empty response, and why stands in the line" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--images", "0"], 2, "--images must be from 1 to 256; found 0"),
        (["--id", "0815"], 1, "has no unit or image '0815'"),
        (["--model", "gone"], 2, "--model must be a folder that is there, or a hub id 'owner/name'; found 'gone'"),
        (["--model", "./gone"], 1, "the folder ./gone of --model is not there"),
        (["--adapter", "gone"], 1, "--adapter must be a folder with adapter_config.json"),
        (["--prompt", "gone"], 1, "gone must be a prompt, text in UTF-8; found no such file"),
        (["--out", "no/a.jsonl"], 2, "--out: the folder no does not exist"),
        (["--task", "gone"], 2, "has no task 'gone'"),
        (["--batch", "0"], 2, "--batch must be 1 or more"),
        (["--device", "tpu"], 2, "device must be 'auto', 'cpu', 'cuda'"),
        (["--dtype", "int4"], 2, "dtype must be 'auto' or one of float32, bfloat16, float16; found 'int4'"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said_in_one_line(
    words: list[str], code: int, message: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*ASKED, *words]) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert not list(inside.glob("*.jsonl"))
