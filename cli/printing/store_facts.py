"""What ``embed info`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.options import plural, print_facts
from cli.project import shown
from embedstore.store.layout import VECTORS

_SHOWN_FAILURES = 10


def print_store(document: Mapping[str, Any], *, all_failures: bool) -> None:
    """Print what `cli.jobs.describe_store.describe_store` found; the first failures, or all of them."""
    identity, preprocess = document["identity"], document["identity"]["preprocess"]
    square = ", square pixels" if preprocess.get("square_pixels") and preprocess["preset"] == "pad" else ""
    click.echo(f"{shown(Path(document['store']))}")
    print_facts(
        {
            "  encoder": f"{identity['encoder']}, revision {identity['revision']}, {identity['dim']}-d",
            "  preprocess": f"{preprocess['preset']}, {preprocess['size_px']} px{square}",
            "  identity": document["identity_sha256"],
            "  images": f"{document['valid']:,} with a vector, {document['failed']:,} failed, "
            f"{document['pending']:,} pending",
        }
    )
    for part in document["parts"]:
        click.echo(
            f"  part {part['number']}: {part['dataset']}, {plural(part['rows'], 'row')}, {part['dtype']}, "
            f"{part['finished_chunks']} of {plural(part['chunks'], 'chunk')} finished, "
            f"largest rounding error {_rounding_error(part, part)}"
        )
        if part["key_fingerprint"]:
            kept = (
                "paths hidden"
                if part["root"] is None
                else "paths kept: to hide them, extract into a new store"
            )
            click.echo(f"    ids are digests of the key {part['key_fingerprint']}; {kept}")
        for name, array in part["arrays"].items():
            if name != VECTORS:
                shape = " x ".join(f"{length:,}" for length in array["row_shape"])
                click.echo(
                    f"    array {name}: {shape} per row ({array['row']}), {array['dtype']}, "
                    f"largest rounding error {_rounding_error(part, array)}"
                )
    for task in document["tasks"]:
        click.echo(
            f"  task {task['name']}: {task['unit']} level, {plural(task['labelled'], 'label')}, {task['counts']}"
        )
    for code, note in document["notes"].items():
        click.echo(
            f"  note, {code}: {plural(note['images'], 'image')}, such as {note['first']}: {note['meaning']}"
        )
    failures = document["failures"] if all_failures else document["failures"][:_SHOWN_FAILURES]
    for failure in failures:
        click.echo(f"  failed: {failure['image_id']}: {failure['reason']}: {failure['message']}")
    if len(failures) < len(document["failures"]):
        click.echo(f"  ... and {len(document['failures']) - len(failures):,} more; --failures lists all")


def _rounding_error(part: Mapping[str, Any], array: Mapping[str, Any]) -> str:
    """Return an array's largest rounding error; ``-`` where nothing of its part is finished yet."""
    return f"{array['rounding_error']:.2g}" if part["finished_chunks"] else "-"
