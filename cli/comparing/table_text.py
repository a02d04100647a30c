"""How encoders and heads compare, on the terminal."""

from __future__ import annotations

import math

import click

from cli.options import plural
from embedstore.task import counted_units
from heads.comparing.compared_cells import ComparedCell
from heads.comparing.comparison_table import ComparedRun, ComparisonTable
from heads.runs.answers import NOTICE
from heads.runs.comparison import p_value_in_words
from heads.runs.run_warnings import FEW_PATIENTS
from heads.statistics.bootstrap import Estimate

_COLUMN = 24
_DIFFERENCE = 26


def print_comparison(table: ComparisonTable) -> None:
    """Print the runs, the best first, with their differences to the baseline, then the subgroups."""
    base = table.runs[table.baseline]
    click.echo(
        f"{table.task}: {counted_units(table.units, table.unit)} of {plural(table.patients, 'patient')}, evaluated "
        f"in every run; baseline: {base.name}"
    )
    if len(table.targets) > 1:
        click.echo(f"mean over {', '.join(table.targets)}")
    for line in table.notes:
        click.echo(f"note: {line}")
    columns = table.columns
    width = max(len(entry.name) for entry in table.runs) + 2
    headings = "".join(f"{name:<{_COLUMN}}" for name in columns)
    difference = f"{table.metric}, to baseline"
    click.echo(f"\n{'run':<{width}}{headings}{difference:<{_DIFFERENCE}}p (Holm)")
    for position in table.best_first:
        entry = table.runs[position]
        cells = "".join(f"{estimate_in_words(entry.metrics.get(name)):<{_COLUMN}}" for name in columns)
        last = "baseline" if position == table.baseline else _difference(entry, table.metric)
        click.echo(f"{entry.name:<{width}}{cells}{last}")
    named = ""
    for cell in table.cells:
        if cell.column != named:
            click.echo(f"\n{table.metric} by {cell.column}")
        named = cell.column
        _print_cell(cell, table, width)
    others = len(table.runs) - 1
    click.echo(
        f"\n95 % intervals and p-values from {table.draws:,} draws of patients, the same for every run; p-values are "
        f"corrected for {plural(others, 'run')} compared in each metric (Holm), those of subgroups are not stated; "
        "differences in other metrics: --json, --out"
    )
    click.echo(NOTICE)


def _print_cell(cell: ComparedCell, table: ComparisonTable, width: int) -> None:
    counted = f"{cell.cell}: {counted_units(cell.units, table.unit)} of {plural(cell.patients, 'patient')}"
    if cell.refused:
        click.echo(f"{counted}; no number: {cell.refused}, fewer than {FEW_PATIENTS}")
        return
    click.echo(counted)
    for position in table.best_first:
        difference = cell.differences[position]
        last = "baseline" if position == table.baseline else signed_in_words(difference)
        value = estimate_in_words(cell.values[position])
        click.echo(f"  {table.runs[position].name:<{width}}{value:<{_COLUMN}}{last}")


def _difference(entry: ComparedRun, metric: str) -> str:
    found = entry.differences.get(metric)
    if found is None:
        return "-"
    return f"{signed_in_words(found.estimate):<{_DIFFERENCE}}{p_value_in_words(entry.corrected_p[metric], found)}"


def signed_in_words(found: Estimate | None) -> str:
    """Return a difference with its signs, ``-`` where there is none."""
    if found is None or math.isnan(found.value):
        return "-"
    if math.isnan(found.low):
        return f"{found.value:+.3f} [no interval]"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def estimate_in_words(found: Estimate | None) -> str:
    """Return an estimate with its interval, ``-`` where there is none."""
    if found is None or math.isnan(found.value):
        return "-"
    if math.isnan(found.low):
        return f"{found.value:.3f} [no interval]"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
