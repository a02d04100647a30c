"""What ``embed audit`` prints."""

from __future__ import annotations

import click

from cli.wording import for_command_line
from embedstore.audit.findings import KINDS, Audit

_SHOWN = 5
_IMAGES_SHOWN = 2


def print_audit(audit: Audit) -> None:
    """Print how many findings there are of each kind, and the first of them."""
    counts = audit.counts
    width = max(map(len, KINDS))
    click.echo(f"{audit.images:,} images with a vector; the pixels of {audit.pictures:,} were looked at")
    for kind, means in KINDS.items():
        unseen = kind in audit.unseen and not counts[kind]
        said = "" if not unseen else " (not looked at)" if not audit.pictures else " (not all were looked at)"
        click.echo(f"  {kind:<{width}}  {'?' if unseen else f'{counts[kind]:,}':>6}  {means}{said}")
    if audit.thresholds:
        said = "; ".join(f"{name} {number:.4f}" for name, number in audit.thresholds.items())
        click.echo(f"fixed by this store's own distances: {said}")
    for line in audit.notices:
        click.echo(for_command_line(line))
    for kind in KINDS:
        found = audit.of_kind(kind)
        if not found:
            continue
        click.echo(f"\n{kind}")
        for finding in found[:_SHOWN]:
            named = ", ".join(finding.image_ids[:_IMAGES_SHOWN])
            more = len(finding.image_ids) - _IMAGES_SHOWN
            click.echo(f"  {named}{f' and {more:,} more' if more > 0 else ''}: {finding.why}")
        if len(found) > _SHOWN:
            click.echo(f"  and {len(found) - _SHOWN:,} more; --out FILE.html shows them, --json has all")
