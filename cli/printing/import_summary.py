"""What ``embed import`` prints at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cli.options import plural
from cli.project import shown
from embedstore.errors import Note
from embedstore.exchange.import_store import ImportSummary

_SHOWN = 3


def print_import(summary: ImportSummary, store: Path) -> None:
    """Print how the store stands, and what was left out."""
    click.echo(f"{shown(store)}: {summary.valid:,} of {plural(summary.images, 'vector')} imported")
    if summary.slides:
        click.echo(f"  read as the patches of {plural(summary.slides, 'slide')}")
    if summary.known:
        click.echo(f"  {plural(summary.known, 'vector')} were there before, and are the same")
    for reason, count in summary.failed.items():
        click.echo(f"  failed, {reason}: {count:,}; `embed info` names them")
    if summary.zero:
        click.echo(
            f"  note, {Note.ZERO_VECTOR.value}: {plural(summary.zero, 'vector')}: {Note.ZERO_VECTOR.words}"
        )
    if summary.unlisted:
        click.echo(f"  left out, vectors that the table does not name: {_some(summary.unlisted)}")
    if summary.absent:
        click.echo(f"  left out, rows of the table without a vector: {_some(summary.absent)}")
    if summary.pending:
        click.echo(
            f"  {plural(summary.pending, 'vector')} wait for others of their chunks, which another file planned; "
            "import that file again"
        )
    click.echo("  its vectors are declared, not computed: `embed label` and `embed probe` come next")


def import_document(summary: ImportSummary, store: Path) -> dict[str, Any]:
    """Return the summary as plain JSON values."""
    return {
        "store": str(store),
        "images": summary.images,
        "valid": summary.valid,
        "pending": summary.pending,
        "failed": dict(summary.failed),
        "known": summary.known,
        "zero": summary.zero,
        "slides": summary.slides,
        "unlisted": list(summary.unlisted),
        "absent": list(summary.absent),
    }


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{len(names):,} ({', '.join(names[:_SHOWN])}{more})"
