"""``embed probe --head all``: every installed head on one task, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from cli.jobs.run_folder import require_run_folder
from cli.options import print_json
from cli.printing.run_summary import inputs_in_words
from cli.project import shown
from embedstore.errors import EmbedError
from heads.registry import head_names
from heads.reporting.page import save_report
from heads.runs.comparison import Comparison, best_first, compare_runs, leading_metric, p_value_in_words
from heads.runs.run import Run

ALL = "all"
COMPARISON = "comparison"
_COLUMNS = ("auroc", "kappa", "log_loss", "ece")


def probe_all(probed: Callable[[str, Path], Run], place_of: Callable[[str], Path], *, as_json: bool) -> None:
    """Probe every installed head, print how they compare, and leave a report about all of them.

    Parameters
    ----------
    probed
        Probes the named head into the named folder.
    place_of
        Says where the run of a head lies, and the comparison's page less its suffix.
    as_json
        Print one JSON object in place of the table.

    Raises
    ------
    EmbedError
        If a run cannot be left in one of the places, or no head could run: the first one's reason.
    """
    report = place_of(COMPARISON).with_name(f"{place_of(COMPARISON).name}.html")
    for name in head_names():
        require_run_folder(place_of(name))
    runs: dict[str, Run] = {}
    skipped: dict[str, Exception] = {}
    for name in head_names():
        try:
            runs[name] = probed(name, place_of(name))
        except (EmbedError, ImportError) as error:
            skipped[name] = error
    if not runs:
        raise next(iter(skipped.values()))
    found = list(runs.values())
    save_report(report, found)
    settings = found[0].document["settings"]
    compared = {
        (found[entry.run].document["settings"]["head"], entry.metric): entry
        for entry in compare_runs(found, draws=settings["draws"], seed=settings["seed"])
    }
    if as_json:
        print_json(_document(runs, skipped, compared, report))
    else:
        _print(runs, skipped, compared, report)


def _print(
    runs: Mapping[str, Run],
    skipped: Mapping[str, Exception],
    compared: Mapping[tuple[str, str], Comparison],
    report: Path,
) -> None:
    first = next(iter(runs.values()))
    metric = leading_metric(first)
    columns = list(dict.fromkeys((metric, *_COLUMNS)))
    intervals = "".join(f"{name:<24}" for name in columns)
    click.echo(f"{'head':<10}{intervals}{'seconds':>8}  {metric}, difference to the best      p (Holm)")
    names = list(runs)
    order = [names[position] for position in best_first(list(runs.values()))]
    for name in order:
        document = runs[name].document
        cells = "".join(f"{_interval(document['metrics'].get(column)):<24}" for column in columns)
        spent = sum(document["seconds"].values())
        click.echo(f"{name:<10}{cells}{spent:8.1f}  {_difference(compared.get((name, metric)))}")
    for name, error in skipped.items():
        click.echo(f"{name:<10}skipped: {error}")
    if any(run.document["inputs"]["tried"] for run in runs.values()):
        click.echo("\ninputs chosen by out-of-fold log loss")
        for name in order:
            click.echo(f"{name:<10}{inputs_in_words(runs[name].document['inputs']['chosen'])}")
    counts = first.document["counts"]
    click.echo(
        f"\n{counts['units_judged']:,} units of {counts['patients_judged']:,} patients judged, all heads on the "
        f"same bootstrap draws; report: {shown(report)}"
    )
    click.echo("Research software, not a medical device.")


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


def _document(
    runs: Mapping[str, Run],
    skipped: Mapping[str, Exception],
    compared: Mapping[tuple[str, str], Comparison],
    report: Path,
) -> dict[str, Any]:
    return {
        "runs": {
            name: {
                "run": str(run.folder),
                "run_id": run.run_id,
                "metrics": run.document["metrics"],
                "seconds": run.document["seconds"],
            }
            for name, run in runs.items()
        },
        "skipped": {name: str(error) for name, error in skipped.items()},
        "differences": [
            {
                "head": name,
                "metric": metric,
                **entry.difference.estimate.to_json(),
                "p_value": entry.difference.p_value,
                "p_value_holm": entry.corrected_p,
            }
            for (name, metric), entry in compared.items()
        ],
        "report": str(report),
    }
