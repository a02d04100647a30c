"""What ``embed localise`` prints: how far off the points are, and whether their names are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from cli.options import print_facts

_COLUMNS = {
    "median_mm": "median mm",
    "p95_mm": "95th mm",
    "within_5_mm": "<= 5 mm",
    "within_10_mm": "<= 10 mm",
    "level_accuracy": "level right",
    "all_levels_right": "all five right",
}
_ROWS = {"localised": "", "mean_position": "  mean position", "first_look": "  first look"}


def print_level_errors(document: Mapping[str, Any]) -> None:
    """Print the facts of a localiser's run, its errors out of fold beside those of the baseline, and the names."""
    counts, names = document["counts"], document["names"]
    said = {name: f"{count:,}" for name, count in counts.items()}
    said["patients learned from"] = f"{document['patients']:,}"
    print_facts(said)
    click.echo("")
    click.echo(f"{'out of fold':<17}{'points':>7}" + "".join(f"  {title:<19}" for title in _COLUMNS.values()))
    for group in document["errors"]["localised"]:
        for row, label in _ROWS.items():
            if row not in document["errors"]:
                continue
            metrics = document["errors"][row].get(group, {})
            cells = "".join(f"  {_cell(name, metrics.get(name)):<19}" for name in _COLUMNS)
            click.echo(f"{label or group:<17}{metrics['median_mm']['n']:>7,}{cells}".rstrip())
    canal = document["errors"]["localised"].get("canal", {})
    levels = {
        name.removeprefix("level_accuracy_"): entry["value"]
        for name, entry in canal.items()
        if name.startswith("level_accuracy_")
    }
    if levels:
        by_level = ", ".join(f"{name} {value:.3f}" for name, value in levels.items())
        click.echo(f"\nlevel right by level, canal: {by_level}")
    click.echo(
        f"names: wrong in {names['wrong']:,} of {names['judged']:,} studies, {names['wrong_and_unsure']:,} of these "
        f"unsure; {names['unsure']:,} unsure in all"
    )
    click.echo(
        "A level is right where the point lies nearest to the readers' of that level, within 20 mm. A point that was\n"
        "not found counts as infinitely far and wrong."
    )


def _cell(name: str, entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    decimals = 1 if name.endswith("_mm") and not name.startswith("within") else 3
    value, low, high = (
        "none" if number is None else f"{number:.{decimals}f}"
        for number in (entry["value"], entry["low"], entry["high"])
    )
    return f"{value} ({low}-{high})"
