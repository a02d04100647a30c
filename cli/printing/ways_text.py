"""Ways from images to lumbar severities, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cli.jobs.probe_ways import ComparedWays
from cli.project import shown
from cli.wording import for_command_line
from heads.comparing.ways_table import WayRow
from heads.lumbar.rsna_score import PARTS, SCORE
from heads.runs.answers import NOTICE
from heads.runs.comparison import p_value_in_words
from heads.runs.run import Run
from heads.statistics.bootstrap import Estimate

_COLUMN = 24
_PARTS = tuple(f"rsna_{part}" for part in PARTS)


def print_finished_way(way: str, head: str, run: Run) -> None:
    """Say to stderr that a run is there; the table follows when all are."""
    click.echo(f"{way}, {head}: {shown(run.folder)}; {run.seconds:.1f} s", err=True)


def print_ways(compared: ComparedWays) -> None:
    """Print the table, the smallest score first, and why some could not run."""
    table = compared.table
    width = max(len(_name(row)) for row in table.rows) + 2
    click.echo("RSNA 2024 lumbar score, of probabilities times (1, 2, 4); smaller is better")
    click.echo(
        f"{'way, head':<{width}}{'score':<{_COLUMN}}{'minus the best':<{_COLUMN}}{'p (Holm)':<10}by prevalence"
    )
    for row in table.rows:
        found = row.differences.get(SCORE)
        last = (
            f"{'best':<{_COLUMN}}{'':<10}"
            if found is None
            else f"{_signed(found.estimate):<{_COLUMN}}{p_value_in_words(row.corrected_p[SCORE], found):<10}"
        )
        click.echo(
            f"{_name(row):<{width}}{_interval(row.metrics[SCORE]):<{_COLUMN}}{last}{row.filled:,} cells"
        )
    headings = "".join(f"{name.removeprefix('rsna_').replace('_', ' '):<20}" for name in _PARTS)
    click.echo(f"\n{'parts of the score':<{width}}{headings}{'kappa, all cells':<{_COLUMN}}")
    for row in table.rows:
        parts = "".join(f"{row.metrics[name].value:<20.3f}" for name in _PARTS)
        click.echo(f"{_name(row):<{width}}{parts}{_interval(row.metrics['kappa'])}")
    for (way, head), error in compared.skipped.items():
        click.echo(f"{way}, {head}: skipped: {for_command_line(str(error))}")
    if any(row.is_oracle for row in table.rows):
        click.echo("\noracle: cut around the readers' own coordinates, which no new study has")
    click.echo(
        f"\n{table.studies:,} studies of {table.patients:,} patients, {table.cells:,} labelled cells, "
        f"{table.folds} equal outer folds; 95 % intervals and p-values from the same draws of patients for every row. "
        "By prevalence: cells without an image for their target. By condition, and further metrics: "
        f"{shown(compared.report)}, --json"
    )
    click.echo(NOTICE)


def ways_document(compared: ComparedWays) -> dict[str, Any]:
    """Return the table as plain JSON values."""
    skipped: Mapping[tuple[str, str], Exception] = compared.skipped
    return {
        **compared.table.to_json(),
        "skipped": [
            {"way": way, "head": head, "reason": for_command_line(str(error))}
            for (way, head), error in skipped.items()
        ],
        "report": str(compared.report),
    }


def _name(row: WayRow) -> str:
    return f"{row.way}, {row.head}"


def _interval(found: Estimate) -> str:
    if not found.low <= found.high:
        return f"{found.value:.3f} [no interval]"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _signed(found: Estimate) -> str:
    if not found.low <= found.high:
        return f"{found.value:+.3f} [no interval]"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
