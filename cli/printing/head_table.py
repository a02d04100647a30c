"""``embed probe`` of several heads, and of ways from lumbar images with heads, each in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from cli.jobs.probe_all import ComparedHeads
from cli.jobs.probe_ways import ComparedWays
from cli.printing.run_summary import (
    OF_ECE,
    SAY_ORDER,
    inputs_in_words,
    predict_line,
    print_left_out,
    print_warnings,
)
from cli.project import shown
from cli.wording import for_command_line
from embedstore.files import StrPath
from heads.comparing.ways_table import WayRow
from heads.lumbar.rsna_score import PARTS, SCORE
from heads.reporting.words import binned_text
from heads.runs.answers import NOTICE
from heads.runs.comparison import Comparison, best_first, leading_metric, p_value_in_words
from heads.runs.patient_vectors import vectors_in_words
from heads.runs.run import Run
from heads.statistics.bootstrap import Estimate
from heads.statistics.metrics import shown_in

# Columns of the table of ways, and the parts of its score.
_COLUMN = 24
_PARTS = tuple(f"rsna_{part}" for part in PARTS)
# Targets whose weights are written out.
_WRITTEN_OUT = 3


def print_finished(name: str, run: Run) -> None:
    """Print a head's numbers to stderr as soon as they are there; the table of all follows when all are."""
    columns = list(dict.fromkeys((leading_metric(run), *shown_in("heads"))))
    cells = ", ".join(f"{column} {_interval(run.document['metrics'].get(column))}" for column in columns)
    click.echo(f"{name:<10}{cells}; {run.seconds:.1f} s", err=True)


def print_head_table(compared: ComparedHeads, *, stores: Sequence[StrPath] = ()) -> None:
    """Print how the heads compare, the best first, and why some could not run; `stores` as `print_run`."""
    runs = compared.runs
    first = next(iter(runs.values()))
    metric = leading_metric(first)
    columns = list(dict.fromkeys((metric, *shown_in("heads"))))
    intervals = "".join(f"{name:<24}" for name in columns)
    click.echo(f"{'head':<10}{intervals}{'seconds':>8}  {metric}, difference to the best      p (Holm)")
    names = list(runs)
    order = [names[position] for position in best_first(list(runs.values()))]
    for name in order:
        document = runs[name].document
        cells = "".join(f"{_interval(document['metrics'].get(column)):<24}" for column in columns)
        click.echo(
            f"{name:<10}{cells}{runs[name].seconds:8.1f}  {_difference(compared.differences.get((name, metric)))}"
        )
    if constant := first.document["without_image"]:
        cells = "".join(f"{_interval(constant.get(column)):<24}" for column in columns)
        click.echo(f"{'no image':<10}{cells}{'':8}  the prevalence of training, said of every unit")
    _print_of_ece({name: runs[name].document["metrics"].get("ece") for name in order})
    for name, reason in first.document.get("left_out_metrics", {}).items():
        click.echo(f"{name}: left out: {reason} ({SAY_ORDER})")
    for name, error in compared.skipped.items():
        click.echo(f"{name:<10}skipped: {for_command_line(str(error))}")
    if any(run.document["inputs"]["tried"] for run in runs.values()):
        click.echo("\ninputs chosen by out-of-fold log loss")
        for name in order:
            click.echo(f"{name:<10}{inputs_in_words(runs[name].document['inputs']['chosen'])}")
    for line in _weights(runs):
        click.echo(line)
    click.echo()
    print_left_out(first.document)
    for name in order:
        print_warnings(runs[name].document, name=f"{name:<10}")
    counts = first.document["counts"]
    click.echo(
        f"evaluated on {counts['units_evaluated']:,} units of {counts['patients_evaluated']:,} patients, all heads "
        f"on the same bootstrap draws; report: {shown(compared.report)}"
    )
    held = {name: vectors_in_words(run.document) for name, run in runs.items()}
    for words in dict.fromkeys(held.values()):
        click.echo(f"{', '.join(name for name in held if held[name] == words)}: {words}")
    click.echo(NOTICE)
    if stores:
        click.echo(f"Next: {predict_line(runs[order[0]], stores)}")


def comparison_document(compared: ComparedHeads) -> dict[str, Any]:
    """Return the table as plain JSON values, with every metric's differences."""
    return {
        "runs": {
            name: {
                "run": str(run.folder),
                "run_id": run.run_id,
                "metrics": run.document["metrics"],
                "seconds": run.timing.get("seconds", {}),
                "without_image": run.document["without_image"],
                "warnings": run.document["warnings"],
                "left_out_metrics": run.document.get("left_out_metrics", {}),
                "left_out_targets": run.document["left_out_targets"],
            }
            for name, run in compared.runs.items()
        },
        "skipped": {name: for_command_line(str(error)) for name, error in compared.skipped.items()},
        "differences": [
            {
                "head": name,
                "metric": metric,
                **entry.difference.estimate.to_json(),
                "p_value": entry.difference.p_value,
                "p_value_holm": entry.corrected_p,
            }
            for (name, metric), entry in compared.differences.items()
        ],
        "report": str(compared.report),
    }


def print_finished_way(way: str, head: str, run: Run) -> None:
    """Say to stderr that a run is there; the table follows when all are."""
    click.echo(f"{way}, {head}: {shown(run.folder)}; {run.seconds:.1f} s", err=True)


def print_ways(compared: ComparedWays) -> None:
    """Print the table, the smallest score first, and why some could not run."""
    table = compared.table
    width = max(len(_way_name(row)) for row in table.rows) + 2
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
            f"{_way_name(row):<{width}}{_estimated(row.metrics[SCORE]):<{_COLUMN}}{last}{row.filled:,} cells"
        )
    headings = "".join(f"{name.removeprefix('rsna_').replace('_', ' '):<20}" for name in _PARTS)
    click.echo(f"\n{'parts of the score':<{width}}{headings}{'kappa, all cells':<{_COLUMN}}")
    for row in table.rows:
        parts = "".join(f"{row.metrics[name].value:<20.3f}" for name in _PARTS)
        click.echo(f"{_way_name(row):<{width}}{parts}{_estimated(row.metrics['kappa'])}")
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


def _print_of_ece(of_head: Mapping[str, Mapping[str, Any] | None]) -> None:
    if any(of_head.values()):
        told = ", ".join(
            f"{name} {words}" for name, entry in of_head.items() if (words := binned_text(entry))
        )
        click.echo(f"ece: {OF_ECE}{f'; {told}' if told else ''}")


def _weights(runs: Mapping[str, Run]) -> list[str]:
    """Return how much each head counts in a blend, by target; of many targets those of the first."""
    lines = []
    for name, run in runs.items():
        entries = run.document["heads"] if run.document.get("parts") else []
        for entry in entries[:_WRITTEN_OUT]:
            weights = ", ".join(f"{part} {weight:.2f}" for part, weight in entry["point"].items())
            lines.append(f"weights in {name}, {entry['target']}: {weights}")
        if others := len(entries) - _WRITTEN_OUT:
            lines += [f"weights of {others} more targets stand in run.json of {name}"] if others > 0 else []
    return lines


def _interval(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["value"] is None:
        return "-"
    if entry["low"] is None:
        return f"{entry['value']:.3f} [no interval]"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return "best"
    interval = _interval(comparison.difference.estimate.to_json())
    return f"{interval:<33} {p_value_in_words(comparison.corrected_p, comparison.difference)}"


def _way_name(row: WayRow) -> str:
    return f"{row.way}, {row.head}"


def _estimated(found: Estimate) -> str:
    if not found.low <= found.high:
        return f"{found.value:.3f} [no interval]"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _signed(found: Estimate) -> str:
    if not found.low <= found.high:
        return f"{found.value:+.3f} [no interval]"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
