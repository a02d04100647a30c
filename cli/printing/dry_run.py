"""What ``embed extract --dry-run`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from cli.options import plural, print_json
from cli.printing.progress import clock
from embedstore.brief import in_bytes
from embedstore.errors import and_more, first_few
from embedstore.extraction.dry_run import DryRun

_SHOWN = 10


def print_dry_run(
    found: DryRun, *, data: Mapping[str, Any], as_json: bool, paths: Mapping[str, str] | None = None
) -> None:
    """Print counts, refusals, speeds and sizes.

    Parameters
    ----------
    found
        What a dry run found.
    data
        More of the data set, for JSON.
    as_json
        Print an object in place of lines.
    paths
        Image id -> file, by which images are named where their ids lead nowhere.
    """
    paths = paths or {}
    if as_json:
        print_json(_as_json(found) | dict(data))
        return
    most = "" if found.is_complete else "at most "
    click.echo(
        f"would compute {most}{found.computable:,} of {plural(found.images, 'image')}; "
        f"{found.known:,} are in the store already"
    )
    for line in found.revised:
        click.echo(f"would revise, {line}")
    if found.again:
        click.echo(
            f"would compute {plural(found.again, 'image')} again: file or facts about the pixels changed"
        )
    for (modality, plane, split), count in found.groups.items():
        named = ", ".join(part for part in (modality, plane, split) if part) or "no modality or split known"
        click.echo(f"  {named}: {count:,}")
    for reason, image_ids in found.absent.items():
        click.echo(
            f"would refuse, {reason}: {plural(len(image_ids), 'image')}: "
            + first_few([paths.get(image_id, image_id) for image_id in image_ids], shown=3)
        )
    click.echo(
        f"looked at the pixels of {plural(found.sampled, 'image')}: {len(found.refused):,} would be refused"
    )
    for image_id, refusal in list(found.refused.items())[:_SHOWN]:
        click.echo(f"  {paths.get(image_id, image_id)}: {refusal.reason}: {refusal.message}")
    if len(found.refused) > _SHOWN:
        click.echo(f" {and_more(len(found.refused) - _SHOWN)}; --json lists all")
    if math.isfinite(found.seconds):
        click.echo(
            f"about {clock(found.seconds)} (decoding {found.decode_per_s:,.0f} images/s, "
            f"encoding {found.encode_per_s:,.1f} images/s) and {found.disk_bytes / 1e6:,.1f} MB"
        )
    if len(found.array_bytes) > 1:
        sizes = (f"{name} {in_bytes(size)}" for name, size in found.array_bytes.items())
        click.echo(f"  of which {', '.join(sizes)}")


def _as_json(found: DryRun) -> dict[str, object]:
    groups = [
        {"modality": modality, "plane": plane, "split": split, "images": count}
        for (modality, plane, split), count in found.groups.items()
    ]
    return {
        "images": found.images,
        "computable": found.computable,
        "complete": found.is_complete,
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
        "array_bytes": dict(found.array_bytes),
    }


def _finite(number: float) -> float | None:
    return round(number, 2) if math.isfinite(number) else None
