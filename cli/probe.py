"""``embed probe``: phase two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cli.head_table import ALL, probe_all
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
from cli.text import zeroshot_family_of
from cli.thumbnails import thumbnails_of_units
from embedstore.errors import UsageError
from embedstore.store.reader import open_store
from embedstore.task import POOLINGS
from embedstore.view import View, load_view
from heads.confident_errors import confident_errors
from heads.learning_curve import learning_curve
from heads.probe import probe
from heads.report import save_report
from heads.run import Run, save_run

# What the terminal shows; the run and its report hold every metric.
_HEADLINE = ("auroc", "auprc", "kappa", "accuracy", "log_loss", "brier", "ece")


@click.command(name="probe", cls=ProjectCommand)
@store_option
@click.option("--task", help="Task of the store.  [default: its only one]")
@click.option("--head", default="logistic", show_default=True, help="Head to fit, or all to compare them.")
@click.option("--preset", metavar="NAME", help="A published protocol in place of --head: google-lr, ...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run folder; with --head all the folder that holds one for each.  [default: runs/TASK-HEAD]",
)
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
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Rate at which conformal sets shall hold the true class.",
)
@click.option(
    "--learning-curve",
    "with_curve",
    is_flag=True,
    help="Also learn from 64, 128, ... patients, 5 times each.",
)
@click.option(
    "--thumbnails/--no-thumbnails",
    default=False,
    show_default=True,
    help="Put pictures of confident errors into the report; they are patients' images.",
)
@click.option(
    "--encoder", help="zeroshot: folder or hub id of the store's encoder.  [default: its registered name]"
)
@click.option("--prompts", type=click.Path(path_type=Path), help="zeroshot: a file like heads/prompts.toml.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of folds and draws.")
@click.option("--runs", hidden=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def command(
    context: click.Context,
    store: Path | None,
    task: str | None,
    head: str,
    preset: str | None,
    out: Path | None,
    pooling: str | None,
    class_weights: Any,
    folds: int,
    draws: int,
    coverage: float,
    with_curve: bool,
    thumbnails: bool,
    encoder: str | None,
    prompts: Path | None,
    seed: int,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Fit, select, calibrate and evaluate a head on a store's vectors; leave a run folder with its report.

    \b
    Example:
      embed probe --store mura.store --task abnormal --head logistic
    """
    family = None
    if preset is not None:
        if context.get_parameter_source("head") is ParameterSource.COMMANDLINE:
            raise UsageError(f"--preset {preset} brings its own head; leave --head {head} out")
        from heads.presets import preset_family

        head, family = preset_family(preset)
    opened = open_store(require(store, "--store"))
    view = load_view(opened, task)
    shared: dict[str, Any] = {
        "seed": seed,
        "folds": folds,
        "draws": draws,
        "pooling": pooling,
        "class_weights": class_weights,
        "family": family,
    }
    runs_folder = runs or project_of(context).folder / "runs"

    def probed(name: str, folder: Path) -> Run:
        options = dict(shared)
        if name == "zeroshot":
            options["family"] = zeroshot_family_of(
                opened, view.task, encoder=encoder, device="auto", prompts=prompts
            )
        result = probe(view, name, coverage=coverage, **options)
        result = replace(result, settings=replace(result.settings, preset=preset or ""))
        if with_curve:
            result = replace(result, learning_curve=learning_curve(view, name, **options))
        run = save_run(folder, result)
        wrong = (error.unit_id for error in confident_errors(run))
        pictures = thumbnails_of_units(opened, wrong, view.task.unit) if thumbnails else None
        save_report(folder / "report.html", [run], thumbnails=pictures)
        return run

    if head == ALL:
        probe_all(probed, runs_folder / f"{view.task.name}-" if out is None else out, as_json=as_json)
        return
    folder = out or runs_folder / f"{view.task.name}-{preset or head}"
    run = probed(head, folder)
    report = folder / "report.html"
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
    _print_sets(document)
    _print_curve(document)
    for column, cells in document["by_subgroup"].items():
        click.echo(f"\n{settings_metric(document)} by {column}")
        for cell, metrics in cells.items():
            click.echo(f"{cell or 'unknown':<12} {_estimate(metrics[settings_metric(document)])}")
    spent = sum(document["seconds"].values())
    click.echo(f"\n{shown(folder)}: run {run.run_id}, {spent:.1f} s; report: {shown(report)}")
    click.echo("Research software, not a medical device.")


def _print_sets(document: Mapping[str, Any]) -> None:
    for entry in document["heads"]:
        target, sets = entry["target"], document["conformal_sets"].get(entry["target"])
        if sets:
            click.echo(
                f"\nconformal sets at {entry['conformal']['coverage']:.0%}, {target}: "
                f"hold the truth in {sets['coverage']['value']:.1%}, {sets['size']['value']:.2f} classes on average"
            )
        elif entry["conformal"]["refused"]:
            click.echo(f"\nno conformal sets, {target}: {entry['conformal']['refused']}")


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
