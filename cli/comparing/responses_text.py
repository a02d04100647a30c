"""How generated answers compare with runs, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cli.comparing.table_text import estimate_in_words, signed_in_words
from cli.options import plural
from embedstore.task import counted_units
from heads.comparing.compared_answers import ComparedAnswers
from heads.comparing.responses_table import ResponsesTable
from heads.lumbar.grades import LABELS
from heads.runs.answers import NOTICE
from heads.runs.comparison import p_value_in_words
from heads.statistics.bootstrap import Estimate

_COLUMN, _DIFFERENCE = 24, 26
_COLUMNS = ("kappa", "weighted_accuracy", "weighted_f1", "accuracy", "rsna_proxy")
_OF_PROBABILITIES = {"rsna_score": "RSNA score", "log_loss": "log loss", "ece": "ECE"}


def print_responses(table: ResponsesTable) -> None:
    """Print all cells together, then each condition, then how the responses were read."""
    base = table.rows[table.baseline]
    click.echo(
        f"{table.task}: {counted_units(table.studies, table.unit)} of {plural(table.patients, 'patient')}, "
        f"{table.cells:,} labelled cells; baseline: {base.name}"
    )
    for line in table.notes:
        click.echo(f"note: {line}")
    width = max(len(row.name) for row in table.rows) + 2
    headings = "".join(f"{LABELS[name]:<{_COLUMN}}" for name in _COLUMNS)
    click.echo(f"\n{'answers of':<{width}}{headings}{'kappa, to baseline':<{_DIFFERENCE}}p (Holm)")
    for position, row in enumerate(table.rows):
        last = "baseline" if position == table.baseline else _difference(row)
        click.echo(f"{row.name:<{width}}{_cells(row.metrics, _COLUMNS)}{last}")
    shown = [name for name in _OF_PROBABILITIES if any(name in row.metrics for row in table.rows)]
    headings = "".join(f"{_OF_PROBABILITIES[name]:<{_COLUMN}}" for name in shown)
    click.echo(f"\n{'probabilities of':<{width}}{headings}")
    for row in table.rows:
        if any(name in row.metrics for name in shown):
            click.echo(f"{row.name:<{width}}{_cells(row.metrics, shown)}")
    _print_calibration(table, width)
    for condition in base.conditions:
        click.echo(f"\n{condition.replace('_', ' ')}")
        for row in table.rows:
            kappa, accuracy = (row.conditions[condition][name] for name in ("kappa", "accuracy"))
            click.echo(
                f"  {row.name:<{width}}kappa {estimate_in_words(kappa):<{_COLUMN}}accuracy "
                f"{estimate_in_words(accuracy)}"
            )
    for of_file in table.read:
        _print_reading(of_file)
    click.echo(
        f"\n95 % intervals and p-values from {table.draws:,} draws of patients, the same for every row; p-values are "
        "corrected for all rows in each metric (Holm); the RSNA proxy is 16.1 times the weighted error and no log "
        "loss; differences in other metrics: --json, --out"
    )
    click.echo(NOTICE)


def _print_calibration(table: ResponsesTable, width: int) -> None:
    """Print what is stated and what was observed on average; the page has the curves."""
    click.echo(f"\n{'all cells together':<{width}}mean probability, and share observed")
    for row in table.rows:
        if row.calibration:
            told = "; ".join(
                f"{event} {curve.stated:.3f}, observed {curve.observed:.3f}"
                for event, curve in row.calibration.items()
            )
            click.echo(f"{row.name:<{width}}{told}")


def _print_reading(of_file: Mapping[str, Any]) -> None:
    flaws = {**of_file["flaws_of_responses"], **of_file["flaws_of_cells"]}
    counted = ", ".join(f"{count:,} x {kind}" for kind, count in flaws.items() if count)
    click.echo(
        f"\n{of_file['file']}: {plural(of_file['responses'], 'response')}, {of_file['unread_responses']:,} unread; "
        f"{of_file['unread_cells']:,} of {of_file['cells']:,} cells unread (as Normal/Mild, and left out in a row of "
        f"their own); flaws: {counted or 'none'}"
        + (f"; {of_file['repeated_lines']:,} repeated lines left out" if of_file["repeated_lines"] else "")
    )


def _cells(metrics: Mapping[str, Estimate], names: tuple[str, ...] | list[str]) -> str:
    return "".join(f"{estimate_in_words(metrics.get(name)):<{_COLUMN}}" for name in names)


def _difference(row: ComparedAnswers) -> str:
    found = row.differences.get("kappa")
    if found is None:
        return "-"
    p = p_value_in_words(row.corrected_p["kappa"], found)
    return f"{signed_in_words(found.estimate):<{_DIFFERENCE}}{p}"
