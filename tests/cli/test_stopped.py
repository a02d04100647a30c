"""How the command ends that Ctrl-C stops, and one whose name is misspelt."""

from __future__ import annotations

from cli.commands import info
from cli.main import run


def test_ctrl_c_is_no_error_and_has_an_exit_code_of_its_own(monkeypatch, capsys):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(info.command, "callback", stop)
    assert run(["info", "s"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_a_misspelt_command_gets_the_nearest(capsys):
    assert run(["serch"]) == 2
    assert "No such command 'serch'; see `embed --help`. Did you mean 'search'?" in capsys.readouterr().err
