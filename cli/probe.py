"""``embed probe``: phase two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.options import (
    ProjectCommand,
    json_option,
    print_facts,
    print_json,
    project_of,
    require,
    store_option,
)
from cli.project import shown
from embedstore.store.reader import open_store
from embedstore.task import POOLINGS
from embedstore.view import View, load_view
from heads.probe import probe
from heads.report import save_report
from heads.run import Run, save_run

# What the terminal shows; the run and its report hold every metric.
_HEADLINE = ("auroc", "auprc", "kappa", "accuracy", "log_loss", "brier", "ece")


@click.command(name="probe", cls=ProjectCommand)
@store_option
@click.option("--task", help="Task of the store.  [default: its only one]")
@click.option("--head", default="logistic", show_default=True, help="Head to fit.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/TASK-HEAD]")
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    help="How a study's images give one answer.  [default: the task's]",
)
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced", "task"]),
    default="none",
    show_default=True,
    help="Weights in training; undone in the probabilities.",
)
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Patient folds.")
@click.option(
    "--draws", type=click.IntRange(1), default=2000, show_default=True, help="Bootstrap draws of patients."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of folds and draws.")
@click.option("--runs", hidden=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def command(
    context: click.Context,
    store: Path | None,
    task: str | None,
    head: str,
    out: Path | None,
    pooling: str | None,
    class_weights: Any,
    folds: int,
    draws: int,
    seed: int,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Fit, select, calibrate and evaluate a head on a store's vectors; leave a run folder with its report.

    \b
    Example:
      embed probe --store mura.store --task abnormal --head logistic
    """
    view = load_view(open_store(require(store, "--store")), task)
    result = probe(
        view, head, seed=seed, folds=folds, draws=draws, pooling=pooling, class_weights=class_weights
    )
    folder = out or (runs or project_of(context).folder / "runs") / f"{view.task.name}-{head}"
    run = save_run(folder, result)
    report = folder / "report.html"
    save_report(report, [run])
    if as_json:
        print_json({"run": str(folder), "run_id": run.run_id, **run.document})
        return
    _print(run, view, folder, report)


def _print(run: Run, view: View, folder: Path, report: Path) -> None:
    document = run.document
    counts, settings = document["counts"], document["settings"]
    judged = (
        f"{settings['mode']}, {settings['evaluation_split']}"
        if settings["evaluation_split"]
        else settings["mode"]
    )
    print_facts(
        {
            "task": f"{document['task']['name']}: {view.task.unit} level, {', '.join(view.task.classes)}",
            "learned from": f"{_counted(counts, 'fitted', view.task.unit)}",
            "judged by": f"{_counted(counts, 'judged', view.task.unit)} ({judged})",
            **({"left out": _listed(document["excluded"])} if document["excluded"] else {}),
        }
    )
    for entry in document["heads"]:
        chosen = ", ".join(f"{name} {_number(value)}" for name, value in entry["point"].items())
        click.echo(f"{entry['target']}: {chosen}; calibration {entry['calibration']}")
    click.echo(f"\n{'metric':<9} {'value':>7}  95 % interval, patient bootstrap")
    for name in _HEADLINE:
        if name in document["metrics"]:
            click.echo(f"{name:<9} {_estimate(document['metrics'][name])}")
    for column, cells in document["by_subgroup"].items():
        click.echo(f"\n{settings_metric(document)} by {column}")
        for cell, metrics in cells.items():
            click.echo(f"{cell or 'unknown':<12} {_estimate(metrics[settings_metric(document)])}")
    spent = sum(document["seconds"].values())
    click.echo(f"\n{shown(folder)}: run {run.run_id}, {spent:.1f} s; report: {shown(report)}")
    click.echo("Research software, not a medical device.")


def settings_metric(document: Mapping[str, Any]) -> str:
    """Return the task's primary metric, or AUROC where the run has no such metric."""
    name: str = document["task"]["primary_metric"]
    return name if name in document["metrics"] else "auroc"


def _counted(counts: Mapping[str, int], role: str, unit: str) -> str:
    units = "studies" if unit == "study" else "images"
    return f"{counts[f'units_{role}']:,} {units} of {counts[f'patients_{role}']:,} patients"


def _estimate(entry: Mapping[str, Any]) -> str:
    value, low, high = (_padded(entry[key]) for key in ("value", "low", "high"))
    return f"{value}  {low} to {high}  n={entry['n']:,}"


def _padded(number: float | None) -> str:
    return "      -" if number is None else f"{number:7.3f}"


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())
