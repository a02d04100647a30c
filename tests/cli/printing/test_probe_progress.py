"""What a probe shows of itself: a moving line on a terminal, lines on request, else nothing; and how it is stopped."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import click
import pytest

from cli.main import run
from cli.printing.probe_progress import in_words, shown_stages
from cli.printing.progress import shown_progress
from heads.stages import Stage, counted, stage, watched
from tests.cli.jobs.conftest import phantom, store

__all__ = ["phantom", "store"]

QUICK = ["--preset", "google-lr", "--draws", "5"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ByteTerminal(io.TextIOWrapper):
    """As a process has it: text over bytes."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def on_screen(drawn: str) -> list[str]:
    """Return the lines that a terminal shows in the end, by the few controls that rich uses."""
    rows, row, column = [""], 0, 0
    for control, character in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z])|(.)", drawn, re.DOTALL):
        if character == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif character == "\r":
            column = 0
        elif character:
            rows[row] = rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
            column += 1
        elif control.endswith("A"):
            row -= int(control[2:-1] or 1)
        elif control == "\x1b[2K":
            rows[row] = ""
    return [line.rstrip() for line in rows]


def test_on_a_terminal_every_enclosing_stage_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with shown_stages(verbose=False) as watch, watched(watch), stage("head 2 of 6: mlp"):
        for _ in counted("outer fold", range(5)):
            with stage("calibration"):
                pass
    drawn = plain(terminal.getvalue())
    for fold in range(1, 6):
        assert f"head 2 of 6: mlp, outer fold {fold} of 5" in drawn


@pytest.mark.parametrize("shown", [shown_stages(verbose=False), shown_progress()])
def test_what_is_printed_beside_a_moving_line_stays_and_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, shown: AbstractContextManager[object]
) -> None:
    terminal, kept = ByteTerminal(), "knn, logistic are kept"
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with shown:
        click.echo(kept, err=True)
    drawn = terminal.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert kept in on_screen(drawn)


def test_where_nobody_looks_nothing_is_written_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verbose in (False, True):
        with shown_stages(verbose=verbose) as watch, watched(watch), stage("selection"), stage("fold", 3, 5):
            pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r" 0:00  selection\n 0:00  selection, fold 3 of 5\n", captured.err)
    assert in_words((Stage("a"), Stage("b", 1, 1_000))) == "a, b 1 of 1,000"


@pytest.mark.parametrize(("verbose", "lines"), [([], False), (["--verbose"], True)])
def test_a_probe_is_silent_without_a_terminal(
    store: Path, capsys: pytest.CaptureFixture[str], verbose: list[str], lines: bool
) -> None:
    assert run(["probe", "--store", str(store), *QUICK, "--out", f"r{lines}", *verbose]) == 0
    said = capsys.readouterr().err
    assert ("selection" in said and "calibration" in said and "5 draws of patients" in said) == lines
    assert lines or said == ""


@pytest.fixture
def ctrl_c_heard() -> Iterator[None]:
    """Hear Ctrl-C also where the tests run in a shell's background, which leaves SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_probe_says_what_is_kept_and_has_its_exit_code(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("cli.jobs.probe_store.probe", lambda *_, **__: os.kill(os.getpid(), number))
    assert run(["probe", "--store", str(store), *QUICK, "--out", "r"]) == 130
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert said == ["nothing is kept in r; run again to start over", "stopped"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_next_line_works_as_it_is_typed(
    phantom: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my runs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert run(["probe", "--store", str(phantom / "mura.store"), *QUICK]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Next: embed predict --probe runs/abnormal-google-lr {phantom / 'mura.store'}"
    assert run(last.removeprefix("Next: embed ").split()) == 0
    assert capsys.readouterr().out.count("unit_id") > 40
