"""What ``embed search`` prints."""

from __future__ import annotations

from typing import Any

import click

from cli.jobs.search_store import SimilarImages


def print_neighbors(found: SimilarImages) -> None:
    """Print one line an image: similarity, id, and what its manifest says of it."""
    if not found.neighbors:
        click.echo("no image to compare with: the conditions leave none")
    named = {"patient_id", "split", *found.columns}
    for entry in found.neighbors:
        facts = " ".join(f"{name}={cell}" for name, cell in entry.record.items() if name in named)
        click.echo(f"{entry.similarity:.4f}  {entry.image_id}  {facts}")


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
