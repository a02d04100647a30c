"""What ``embed search`` prints."""

from __future__ import annotations

import shlex
from typing import Any

import click

from cli.jobs.search_store import SimilarImages
from cli.wording import for_command_line
from embedstore.queries.conditions import condition_text


def print_neighbors(found: SimilarImages) -> None:
    """Print one line an image: similarity, id, and what its manifest says of it.

    Ids and facts stand as a shell takes them after ``--id`` and ``--where``, in quotes where they need them.
    """
    if not found.neighbors:
        why = f"; {for_command_line(found.why_none)}" if found.why_none else ""
        click.echo(f"no image to compare with: the conditions leave none{why}")
    named = {"patient_id", "split", *found.columns}
    for entry in found.neighbors:
        facts = " ".join(
            shlex.quote(condition_text(name, cell)) for name, cell in entry.record.items() if name in named
        )
        click.echo(f"{entry.similarity:.4f}  {shlex.quote(entry.image_id)}  {facts}")


def neighbors_document(found: SimilarImages) -> list[dict[str, Any]]:
    """Return the images as plain JSON values."""
    return [
        {
            "image_id": entry.image_id,
            "similarity": entry.similarity,
            "row": entry.row,
            "record": dict(entry.record),
        }
        for entry in found.neighbors
    ]
