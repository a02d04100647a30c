"""What ``embed extract --dry-run`` prints."""

from __future__ import annotations

import math

import click

from cli.options import plural, print_json
from cli.printing.progress import clock
from embedstore.extraction.dry_run import DryRun

_SHOWN = 10


def print_dry_run(found: DryRun, *, as_json: bool) -> None:
    """Print counts, refusals, speeds and sizes."""
    if as_json:
        print_json(_as_json(found))
        return
    click.echo(f"would compute {plural(found.images, 'image')}; {found.known:,} are in the store already")
    for line in found.revised:
        click.echo(f"would revise, {line}")
    if found.again:
        click.echo(
            f"would compute {plural(found.again, 'image')} again: file or facts about the pixels changed"
        )
    for (modality, plane, split), count in found.groups.items():
        named = ", ".join(part for part in (modality, plane, split) if part) or "unknown"
        click.echo(f"  {named}: {count:,}")
    for reason, image_ids in found.absent.items():
        shown = ", ".join(image_ids[:3]) + (", ..." if len(image_ids) > 3 else "")
        click.echo(f"would refuse, {reason}: {plural(len(image_ids), 'file')}: {shown}")
    click.echo(
        f"looked at the pixels of {plural(found.sampled, 'image')}: {len(found.refused):,} would be refused"
    )
    for image_id, refusal in list(found.refused.items())[:_SHOWN]:
        click.echo(f"  {image_id}: {refusal.reason}: {refusal.message}")
    if math.isfinite(found.seconds):
        click.echo(
            f"about {clock(found.seconds)} (decoding {found.decode_per_s:,.0f} images/s, "
            f"encoding {found.encode_per_s:,.1f} images/s) and {found.disk_bytes / 1e6:,.1f} MB"
        )


def _as_json(found: DryRun) -> dict[str, object]:
    groups = [
        {"modality": modality, "plane": plane, "split": split, "images": count}
        for (modality, plane, split), count in found.groups.items()
    ]
    return {
        "images": found.images,
        "known": found.known,
        "revised": list(found.revised),
        "again": found.again,
        "groups": groups,
        "absent": {reason.value: list(image_ids) for reason, image_ids in found.absent.items()},
        "sampled": found.sampled,
        "refused": {
            image_id: {"reason": refusal.reason.value, "message": refusal.message}
            for image_id, refusal in found.refused.items()
        },
        "decode_per_s": _finite(found.decode_per_s),
        "encode_per_s": _finite(found.encode_per_s),
        "seconds": _finite(found.seconds),
        "disk_bytes": found.disk_bytes,
    }


def _finite(number: float) -> float | None:
    return round(number, 2) if math.isfinite(number) else None
