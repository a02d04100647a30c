"""What ``embed search --evaluate`` prints."""

from __future__ import annotations

import math

import click

from cli.searching.evaluate_search import SearchQuality, SpaceQuality
from heads.reporting.words import interval_text, number_text
from heads.retrieval.evaluate_retrieval import Agreements
from heads.statistics.bootstrap import Estimate

_TARGETS_SHOWN = 12


def print_search_quality(found: SearchQuality) -> None:
    """Print a table for each space: what the nearest say, what chance would, and the difference."""
    first = found.spaces[0].quality
    click.echo(
        f"task {found.task}: {first.queries:,} of {first.units:,} labelled {_plural(found.unit)} asked, of "
        f"{first.patients:,} patients; others of the same patient never answer. Brackets: 95 % intervals, "
        f"{first.options.draws:,} draws of the patients who ask"
    )
    for space in found.spaces:
        click.echo("")
        _print_space(space)


def _print_space(space: SpaceQuality) -> None:
    quality = space.quality
    k = quality.options.k
    where = "the encoder's space" if space.space == "encoder" else f"the hidden space of {space.space}"
    click.echo(f"{where}, {space.width:,} numbers")
    names = {"precision": f"precision@{k}", "map": "mAP", "ndcg": f"nDCG@{k}"}
    groups = {"all": quality.metrics}
    if len(quality.by_target) > 1:
        groups |= dict(list(quality.by_target.items())[:_TARGETS_SHOWN])
    groups |= {f"of {name}": agreements for name, agreements in quality.by_class.items()}
    rows: list[tuple[str, ...]] = [("", "metric", "found", "by chance", "found minus chance")]
    rows += [row for name, agreements in groups.items() for row in _rows(name, agreements, names)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(f"  {line.rstrip()}")
    if len(quality.by_target) > _TARGETS_SHOWN:
        click.echo(f"  and {len(quality.by_target) - _TARGETS_SHOWN} more targets; --json has all")
    hubs = quality.hubness
    skewness = "all found equally often" if math.isnan(hubs.skewness) else f"skewness {hubs.skewness:.2f}"
    click.echo(
        f"  hubness: {skewness}; {hubs.largest} is among the {hubs.k} nearest of {hubs.largest_share:.1%}; "
        f"{hubs.never:.1%} are never found"
    )


def _rows(name: str, agreements: Agreements, names: dict[str, str]) -> list[tuple[str, ...]]:
    return [
        (
            name if place == 0 else "",
            names[metric],
            _estimate(found.found),
            _estimate(found.chance),
            _estimate(found.lift),
        )
        for place, (metric, found) in enumerate(agreements.items())
    ]


def _estimate(found: Estimate) -> str:
    """Return ``0.812 [0.780, 0.845]``; a dash where the metric does not exist."""
    if math.isnan(found.value):
        return "-"
    return f"{number_text(found.value)} {interval_text(found.to_json())}".rstrip()


def _plural(unit: str) -> str:
    return {"study": "studies", "image": "images"}.get(unit, f"units ({unit})")
