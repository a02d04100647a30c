"""What ``embed verify`` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cli.options import plural
from cli.project import shown
from embedstore.revisions.sources import SourceCheck
from embedstore.store.verify import Verification


def print_verification(path: Path, verification: Verification) -> None:
    """Print one line a finding, then how much was read and what to do."""
    for finding in verification.findings:
        click.echo(f"{finding}")
    counted = f"{plural(verification.chunks, 'chunk')}, {plural(verification.rows, 'row')}"
    if verification.findings:
        click.echo(
            f"{shown(path)}: {plural(len(verification.findings), 'problem')} in {counted}{_pending(verification)}. "
            f"Run: embed verify {shown(path)} --repair"
        )
    else:
        advice = ". Run: embed extract" if verification.pending else ""
        click.echo(
            f"{shown(path)}: sound ({counted} read, every byte as committed){_pending(verification)}{advice}"
        )


def print_repair(path: Path, before: Verification, after: Verification) -> None:
    """Print how many problems were repaired, and what is left to do again."""
    repaired = plural(len(before.findings), "problem")
    click.echo(f"{shown(path)}: {repaired} repaired{_pending(after)}. Run: embed extract")


def print_sources(found: SourceCheck) -> None:
    """Print which files are no longer what was read, a line each, and how many are."""
    for image_id, why in found.changed.items():
        click.echo(f"{image_id}: {why}")
    counts = [f"{plural(found.same, 'image')} as read"]
    if found.changed:
        counts.append(f"{len(found.changed):,} changed, which the next embed extract computes again")
    if found.missing:
        counts.append(
            f"{len(found.missing):,} missing ({found.missing[0]}{', ...' if found.missing[1:] else ''})"
        )
    if found.unknown:
        counts.append(f"{found.unknown:,} of which an earlier release noted no digest")
    click.echo(f"sources: {'; '.join(counts)}")


def verification_document(
    path: Path, verification: Verification, found: SourceCheck | None = None
) -> dict[str, object]:
    """Return what was found as plain JSON values."""
    sources = None if found is None else asdict(found) | {"missing": list(found.missing)}
    return {
        "store": str(path),
        "sound": not verification.findings,
        "chunks": verification.chunks,
        "rows": verification.rows,
        "pending": verification.pending,
        "findings": [asdict(finding) for finding in verification.findings],
        **({} if sources is None else {"sources": sources}),
    }


def _pending(verification: Verification) -> str:
    return f"; {plural(verification.pending, 'row')} pending" if verification.pending else ""
