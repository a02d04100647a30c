"""What ``embed search`` prints."""

from __future__ import annotations

import shlex

import click

from cli.searching.hit_words import labels_in_words, probability_in_words
from cli.searching.search_options import STUDY
from cli.searching.search_store import SearchHit, SearchResult
from cli.wording import for_command_line
from embedstore.queries.conditions import condition_text


def print_hits(found: SearchResult) -> None:
    """Print a table, a line a hit: cosine, study and image, labels, probabilities, and what its manifest says of it.

    Ids and facts stand as a shell takes them after ``--id`` and ``--where``, in quotes where they need them.
    """
    if not found.hits:
        why = f"; {for_command_line(found.why_none)}" if found.why_none else ""
        nothing = "the conditions leave none" if why else "all images are of those that are searched for"
        click.echo(f"no image to compare with: {nothing}{why}")
        return
    rows = [_cells(hit, found) for hit in found.hits]
    names = [name for name in _COLUMNS if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    for row in ({name: name for name in names}, *rows):
        click.echo("  ".join(row[name].ljust(widths[name]) for name in names).rstrip())


_COLUMNS = ("cosine", "study", "images", "image", "labels", "probability", "facts")


def _cells(hit: SearchHit, found: SearchResult) -> dict[str, str]:
    of_study = found.group == STUDY and hit.unit_id != hit.image_id
    inside = f"{hit.unit_id}/"
    shortened = of_study and hit.image_id.startswith(inside)
    image = f".../{hit.image_id.removeprefix(inside)}" if shortened else hit.image_id
    named = {"patient_id", "split", *found.columns}
    return {
        "cosine": f"{hit.cosine:.4f}",
        "study": shlex.quote(hit.unit_id) if of_study else "",
        "images": f"{hit.images:,}" if of_study else "",
        "image": shlex.quote(image),
        "labels": labels_in_words(hit),
        "probability": probability_in_words(hit),
        "facts": " ".join(
            shlex.quote(condition_text(name, cell)) for name, cell in hit.record.items() if name in named
        ),
    }
