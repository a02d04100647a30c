"""What ``embed probe`` prints of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cli.options import plural, print_facts
from cli.project import shown
from embedstore.files import StrPath
from embedstore.task import counted_units
from heads.lumbar.severity_results import AUROC_OF_SEVERE, LABELS
from heads.reporting.page import REPORT_FILE
from heads.reporting.words import binned_text, counted_text, data_in_words
from heads.runs.answers import NOTICE
from heads.runs.patient_vectors import vectors_in_words
from heads.runs.run import Run
from heads.runs.run_warnings import warnings_in_words
from heads.statistics.metrics import METRICS, leading, shown_in
from heads.statistics.subgroups import listed

OF_ECE = "classwise, of the positive class's probability"
SAY_ORDER = "embed label --ordered says so"
# Whose metrics are printed one by one: the 14 findings of chest radiographs, and not the 25 of the lumbar spine.
_MOST_TARGETS = 20
_NO_SETS = "no labelled unit has one; the folds' heads learned from too few patients of a class"
# Of each lumbar condition; run.json and the report have more, and levels and sides.
_OF_CONDITION = ("kappa", AUROC_OF_SEVERE)


def print_run(run: Run, *, stores: Sequence[StrPath] = ()) -> None:
    """Print the task, what was chosen, the headline metrics with their intervals, and where the rest lies.

    Parameters
    ----------
    run
        The run.
    stores
        Stores that it was made from, for the commands that may come next.
    """
    document = run.document
    counts, settings, unit = document["counts"], document["settings"], document["task"]["unit"]
    evaluated = (
        f"{settings['mode']}, {settings['evaluation_split']}"
        if settings["evaluation_split"]
        else settings["mode"]
    )
    print_facts(
        {
            **({"data": data_in_words(document["sources"])} if document["sources"] else {}),
            "task": f"{document['task']['name']}: {unit} level, {_classes(run)}",
            "learned from": f"{_counted(counts, 'fitted', unit)}",
            "evaluated on": f"{_counted(counts, 'evaluated', unit)} ({evaluated})",
            **({"patients": _strangers(counts, unit)} if counts["units_of_unknown_patient"] else {}),
            **({"beside the vectors": ", ".join(settings["metadata"])} if settings["metadata"] else {}),
            **({"left out": _listed(document["excluded"])} if document["excluded"] else {}),
        }
    )
    print_left_out(document)
    _print_inputs(document["inputs"])
    for entry in document["heads"]:
        chosen = ", ".join(f"{name} {_number(value)}" for name, value in entry["point"].items())
        chosen = f"weights {chosen}" if document.get("parts") else chosen
        unsolved = "; not solved to the end" if entry["converged"] is False else ""
        click.echo(f"{entry['target']}: {chosen}; calibration {entry['calibration']}{unsolved}")
    _print_metrics(document)
    _print_targets(document)
    _print_rsna_score(document)
    _print_at_grades(document)
    print_warnings(document)
    _print_sets(document)
    _print_curve(document)
    for column, cells in listed(document["by_subgroup"], document["task"]["subgroups"]).items():
        click.echo(f"\n{settings_metric(document)} by {column}")
        for cell, metrics in cells.items():
            click.echo(f"{cell:<12} {_estimate(metrics[settings_metric(document)])}")
    report = shown(run.folder / REPORT_FILE)
    click.echo(f"\n{shown(run.folder)}: run {run.run_id}, {run.seconds:.1f} s; report: {report}")
    click.echo(f"{shown(run.folder)} {vectors_in_words(document)}{_without_bank(document)}")
    click.echo(NOTICE)
    if stores:
        click.echo(f"Next: {predict_line(run, stores)}")


def print_left_out(document: Mapping[str, Any]) -> None:
    """Print the targets that were too rare to learn, a line for each reason, and folds that had to be fewer."""
    left_out = document["left_out_targets"]
    reasons: dict[str, list[str]] = {}
    for target, entry in left_out.items():
        reasons.setdefault(entry["reason"], []).append(target)
    total = len(left_out) + len(document["task"]["targets"])
    for reason, targets in reasons.items():
        click.echo(
            f"left out: {len(targets)} of {total} targets, {reason}: {', '.join(targets)}"
            f"{_with_fewer_folds([left_out[target]['possible_folds'] for target in targets])}"
        )
    settings = document["settings"]
    asked = settings.get("folds_asked", settings["folds"])
    if settings["folds"] < asked:
        click.echo(
            f"folds: {settings['folds']} in place of {asked}; a class has too few patients for more, in every "
            "target"
        )


def _with_fewer_folds(possible: Sequence[int | None]) -> str:
    """Return the number of folds that would learn most of the targets, ``""`` where none does."""
    numbers = [number for number in possible if number is not None]
    if not numbers:
        return ""
    return f"; --folds {min(numbers)} would learn {len(numbers)} of them"


def print_warnings(document: Mapping[str, Any], *, name: str = "") -> None:
    """Print what must be known before the numbers are believed; `name` says whose they are."""
    for line in warnings_in_words(document):
        click.echo(f"{name}warning: {line}")


def binned_in_words(entry: Mapping[str, Any]) -> str:
    """Return what an ECE is of, and what noise alone would make of it."""
    told = f"; {words}" if (words := binned_text(entry)) else ""
    return f"{OF_ECE}{told}"


def predict_line(run: Run, stores: Sequence[StrPath]) -> str:
    """Return the command that answers with a run for its store, as it may be typed here."""
    return shlex.join(["embed", "predict", "--probe", shown(run.folder), shown(Path(stores[0]))])


def _without_bank(document: Mapping[str, Any]) -> str:
    of_patients = not all(source["phantom"] for source in document["sources"])
    return " (--no-bank leaves them out)" if of_patients and document["patient_vectors"]["bank"] else ""


def inputs_in_words(way: Mapping[str, Any]) -> str:
    """Return ``mean-vector with anatomy`` for one way of giving units to a head, as ``run.json`` names it."""
    columns = ", ".join(way["metadata"])
    return f"{way['pooling']} with {columns}" if columns else str(way["pooling"])


def _print_inputs(inputs: Mapping[str, Any]) -> None:
    if not inputs["tried"]:
        return
    names = [inputs_in_words(way) for way in inputs["tried"]]
    chosen, width = inputs_in_words(inputs["chosen"]), max(map(len, names))
    click.echo(f"\n{'inputs tried':<{width}}  out-of-fold log loss")
    for name, way in zip(names, inputs["tried"], strict=True):
        click.echo(f"{name:<{width}}  {way['log_loss']:.4f}{'  chosen' if name == chosen else ''}")
    click.echo()


def _print_metrics(document: Mapping[str, Any]) -> None:
    n_classes = len(document["task"]["classes"])
    names = [
        name
        for name in shown_in("summary")
        if name in document["metrics"] and METRICS[name].speaks(n_classes)
    ]
    width = max(9, *map(len, [*names, *document.get("left_out_metrics", {})]))
    targets = document["task"]["targets"]
    pooled = f"; means of {len(targets)} targets" if len(targets) > 1 else ""
    click.echo(f"\n{'metric':<{width}} {'value':>7}  95 % interval, patient bootstrap{pooled}")
    for name in names:
        least = METRICS[name].least_units
        absent = f"needs {least} units" if least > 1 else "undefined"
        entry = document["metrics"][name]
        click.echo(f"{name:<{width}} {_estimate(entry, absent=absent)}")
        if METRICS[name].binned and entry["value"] is not None:
            click.echo(f"{'':<{width}} {binned_in_words(entry)}")
    for name, reason in document.get("left_out_metrics", {}).items():
        click.echo(f"{name:<{width}} left out: {reason} ({SAY_ORDER})")
    if document["without_image"]:
        click.echo("no image: the prevalence of training, said of every unit")
        for name in (name for name in names if name in document["without_image"]):
            click.echo(f"{name:<{width}} {_estimate(document['without_image'][name])}")


def _print_targets(document: Mapping[str, Any]) -> None:
    """Print the leading metric of each target; of very many the report has them all."""
    targets, metric = document["task"]["targets"], settings_metric(document)
    if not 1 < len(targets) <= _MOST_TARGETS:
        return
    click.echo(f"\n{metric} by target")
    width = max(map(len, targets))
    for target in targets:
        click.echo(f"{target:<{width}} {_estimate(document['by_target'][target][metric])}")


def _print_rsna_score(document: Mapping[str, Any]) -> None:
    """Print the score of the RSNA lumbar competition, of runs that have one."""
    scores = document.get("rsna_score", {})
    if scores:
        click.echo("\nRSNA 2024 lumbar score, of probabilities times (1, 2, 4); smaller is better")
    width = max(map(len, scores), default=0)
    for name, entry in scores.items():
        click.echo(f"{name:<{width}} {_estimate(entry)}")
    cells = document.get("severity_cells", {})
    if cells.get("from_prevalence"):
        click.echo(
            f"{cells['from_prevalence']:,} of {cells['labelled']:,} labelled cells have no image for their target and "
            "are answered by the prevalence"
        )
    for condition, found in document.get("severity", {}).get("condition", {}).items():
        told = ", ".join(f"{LABELS[name]} {_short(found[name])}" for name in _OF_CONDITION if name in found)
        click.echo(f"{condition}: {told}")


def _print_at_grades(document: Mapping[str, Any]) -> None:
    """Print what thresholds of grades find, of tasks of grades."""
    for grade, rules in document.get("at_grades", {}).items():
        for rule, found in rules.items():
            click.echo(
                f"{grade} or graver at {rule}: sensitivity {_short(found['recall'])}, specificity "
                f"{_short(found['specificity'])}"
            )


def _short(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined"
    interval = "" if entry["low"] is None else f" [{entry['low']:.3f}, {entry['high']:.3f}]"
    return f"{entry['value']:.3f}{interval}"


def _print_sets(document: Mapping[str, Any]) -> None:
    for entry in document["heads"]:
        target, sets = entry["target"], document["conformal_sets"].get(entry["target"])
        if sets:
            click.echo(
                f"\nconformal sets at {entry['conformal']['coverage']:.0%}, {target}: "
                f"hold the truth in {_share(sets['coverage'])}, {sets['size']['value']:.2f} classes on average"
            )
        else:
            reason = entry["conformal"]["refused"] or _NO_SETS
            click.echo(f"\nno conformal sets, {target}: {reason}")


def _print_curve(document: Mapping[str, Any]) -> None:
    if "learning_curve" not in document:
        return
    metric = settings_metric(document)
    click.echo(f"\n{metric} by patients learned from")
    for point in document["learning_curve"]["points"]:
        if metric in point["metrics"]:
            click.echo(f"{point['patients']:<9,} {_estimate(point['metrics'][metric])}")
    for size, reason in document["learning_curve"]["skipped"].items():
        click.echo(f"{int(size):<9,} skipped: {reason}")


def settings_metric(document: Mapping[str, Any]) -> str:
    """Return the task's primary metric, or AUROC where the run has no such metric."""
    return leading(document["task"]["primary_metric"], document["metrics"])


def _classes(run: Run) -> str:
    return ", ".join(f"{name} (positive)" if name == run.positive else name for name in run.classes)


def _strangers(counts: Mapping[str, int], unit: str) -> str:
    unknown = counts["units_of_unknown_patient"]
    return f"unknown of {plural(unknown, unit)}: each is taken for another patient"


def _counted(counts: Mapping[str, int], role: str, unit: str) -> str:
    units = counted_units(counts[f"units_{role}"], unit)
    return f"{units} of {plural(counts[f'patients_{role}'], 'patient')}"


def _estimate(entry: Mapping[str, Any], *, absent: str = "undefined") -> str:
    value, low, high = (_padded(entry[key]) for key in ("value", "low", "high"))
    interval = f"{low} to {high}"
    if entry["low"] is None:
        interval = f"{absent if entry['value'] is None else 'no interval':>{len(interval)}}"
    counted = f" ({words})" if (words := counted_text(entry)) else ""
    return f"{value}  {interval}  n={entry['n']:,}{counted}"


def _share(entry: Mapping[str, Any]) -> str:
    if entry["low"] is None:
        return f"{entry['value']:.1%}"
    return f"{entry['value']:.1%} ({entry['low']:.1%} to {entry['high']:.1%})"


def _padded(number: float | None) -> str:
    return "      -" if number is None else f"{number:7.3f}"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())
