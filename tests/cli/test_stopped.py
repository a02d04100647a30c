"""How the command ends that Ctrl-C stops, and one whose name is misspelt."""

from __future__ import annotations

import contextlib
import signal

import pytest

from cli.commands import info
from cli.main import run
from cli.stop_signal import interrupted_at_stages
from heads.stages import stage, watched


def test_ctrl_c_is_no_error_and_has_an_exit_code_of_its_own(monkeypatch, capsys):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(info.command, "callback", stop)
    assert run(["info", "s"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_a_library_swallows_is_raised_again_by_the_next_stage(number):
    before = signal.getsignal(number)
    seen = []

    def work():
        with stage("first"), contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        with stage("second"):
            pytest.fail("went on")

    with interrupted_at_stages(seen.append) as watch, watched(watch), pytest.raises(KeyboardInterrupt):
        work()
    assert [str(stages[-1]) for stages in seen] == ["first"]
    assert signal.getsignal(number) == before


def test_a_misspelt_command_gets_the_nearest(capsys):
    assert run(["serch"]) == 2
    assert "No such command 'serch'; see `embed --help`. Did you mean 'search'?" in capsys.readouterr().err
