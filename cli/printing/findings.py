"""What ``embed doctor`` prints."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.wording import for_command_line
from embedstore.extraction.installed import Finding, State

_MARKS = {State.FINE: "ok", State.NOTE: "note", State.BROKEN: "BROKEN"}


def print_finding(finding: Finding) -> None:
    """Print one finding with its fix, at once: the next may take seconds."""
    click.echo(f"{_MARKS[finding.state]:<6}  {finding.topic}: {for_command_line(finding.found)}")
    if finding.fix:
        click.echo(f"        fix: {for_command_line(finding.fix)}")
    sys.stdout.flush()


def finding_document(finding: Finding) -> dict[str, Any]:
    """Return a finding as plain JSON values."""
    return {
        "topic": finding.topic,
        "state": finding.state.value,
        "found": for_command_line(finding.found),
        "fix": for_command_line(finding.fix),
        **finding.values,
    }
