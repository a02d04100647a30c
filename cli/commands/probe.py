"""``embed probe``: phase two."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cli.jobs.run_folder import Choices, replaced_run, require_run_folder
from cli.jobs.text_tower import text_family_of
from cli.options import (
    ProjectCommand,
    json_option,
    print_json,
    print_notice,
    project_of,
    require,
    stores_option,
)
from cli.printing.head_table import ALL, probe_all
from cli.printing.run_summary import print_run
from cli.project import Project
from embedstore.errors import UsageError
from embedstore.queries.load_view import load_views
from embedstore.queries.thumbnails import thumbnails_of_units
from embedstore.store.reader import open_store
from embedstore.task import POOLINGS
from embedstore.view import take_targets, without_split
from heads.estimators.presets import preset_family, preset_names
from heads.inputs.input_ways import all_inputs
from heads.inputs.metadata import require_metadata_columns
from heads.protocol.learning_curve import learning_curve
from heads.protocol.probe import probe
from heads.registry import head_needs
from heads.reporting.page import REPORT_FILE, save_report
from heads.runs.confident_errors import confident_errors
from heads.runs.run import Run, save_run
from heads.statistics.conformal import COVERAGE

_FOLDS, _SEED = 5, 0


@click.command(name="probe", cls=ProjectCommand)
@stores_option
@click.option("--task", help="Task of the store.  [default: its only one]")
@click.option(
    "--target", "targets", multiple=True, metavar="NAME", help="Only this target of the task; repeatable."
)
@click.option(
    "--cross-validate", is_flag=True, help="Judge every unit out of fold, whatever official split there is."
)
@click.option("--head", default="logistic", show_default=True, help="Head to fit, or all to compare them.")
@click.option(
    "--preset",
    metavar="NAME",
    help=f"A published protocol in place of --head: {', '.join(preset_names())}.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run folder; with --head all the folder that holds one for each.  [default: runs/TASK-HEAD, and what "
    "tells it from a run without options: runs/TASK-HEAD-cv]",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    help="How a study's images give one answer.  [default: the task's]",
)
@click.option(
    "--with",
    "with_columns",
    metavar="COLUMN",
    multiple=True,
    help="Manifest column (anatomy, ...) that the head gets beside the vector; may be given several times.",
)
@click.option(
    "--select-inputs",
    is_flag=True,
    help="Choose the pooling, and whether --with helps, by out-of-fold log loss; costs one selection for each way.",
)
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced", "task"]),
    default="none",
    show_default=True,
    help="Weights in training; undone in the probabilities.",
)
@click.option("--folds", type=click.IntRange(2), default=_FOLDS, show_default=True, help="Patient folds.")
@click.option(
    "--draws", type=click.IntRange(1), default=2000, show_default=True, help="Bootstrap draws of patients."
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=COVERAGE,
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
    "--encoder",
    help="For a head of words (zeroshot): folder or hub id of the store's encoder.  [default: its registered name]",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="zeroshot: a file like heads/estimators/prompts.toml."
)
@click.option(
    "--device",
    # Not by the name of the project's setting, which is the encoder's and may be cuda:1.
    "fit_device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where heads are fitted; auto takes a GPU if there is one.",
)
@click.option("--seed", type=int, default=_SEED, show_default=True, help="Seed of folds and draws.")
@click.option("--runs", hidden=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def command(
    context: click.Context,
    store: tuple[Path, ...],
    task: str | None,
    targets: tuple[str, ...],
    cross_validate: bool,
    head: str,
    preset: str | None,
    out: Path | None,
    pooling: str | None,
    with_columns: tuple[str, ...],
    select_inputs: bool,
    class_weights: Any,
    folds: int,
    draws: int,
    coverage: float,
    with_curve: bool,
    thumbnails: bool,
    encoder: str | None,
    prompts: Path | None,
    fit_device: str,
    seed: int,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Fit, select, calibrate and evaluate a head on the vectors of a store; leave a run folder with its report.

    Several stores of one identity are used as one when --store is given for each.

    \b
    Example:
      embed probe --store mura.store --task abnormal --head logistic
    """
    family = None
    if preset is not None:
        if context.get_parameter_source("head") is ParameterSource.COMMANDLINE:
            raise UsageError(f"--preset {preset} brings its own head; leave --head {head} out")
        head, family = preset_family(preset)
    if select_inputs and pooling is not None:
        raise UsageError(f"--select-inputs chooses the pooling; leave --pooling {pooling} out")
    require_metadata_columns(with_columns)
    stores = [open_store(path) for path in require(store or None, "--store")]
    view = load_views(stores, task, with_columns=with_columns)
    view = take_targets(view, targets) if targets else view
    view = without_split(view) if cross_validate else view
    ways = all_inputs(view) if select_inputs else None
    if ways is not None and len(ways) == 1:
        click.echo(
            "--select-inputs: nothing to choose from: no study has several images, and there is no --with",
            err=True,
        )
    shared: dict[str, Any] = {
        "seed": seed,
        "folds": folds,
        "draws": draws,
        "pooling": pooling,
        "inputs": ways,
        "class_weights": class_weights,
        "family": family,
        "device": fit_device,
    }
    choices = Choices(
        stores=_other_stores(store, project_of(context)),
        targets=targets,
        cross_validate=cross_validate,
        pooling=pooling,
        with_columns=with_columns,
        select_inputs=select_inputs,
        class_weights=None if class_weights == "none" else class_weights,
        folds=None if folds == _FOLDS else folds,
        coverage=None if coverage == COVERAGE else coverage,
        seed=None if seed == _SEED else seed,
        learning_curve=with_curve,
        prompts=None if prompts is None else prompts.stem,
    )
    runs_folder = runs or project_of(context).folder / "runs"

    def probed(name: str, folder: Path) -> Run:
        options = dict(shared)
        if head_needs(name).text_tower:
            options["family"] = text_family_of(
                name, stores[0], view.task, encoder=encoder, device=fit_device, prompts=prompts
            )
        result = probe(view, name, coverage=coverage, **options)
        result = replace(result, settings=replace(result.settings, preset=preset or ""))
        if with_curve:
            started = time.perf_counter()
            curve = learning_curve(view, name, **options)
            seconds = {**result.seconds, "learning_curve": time.perf_counter() - started}
            result = replace(result, learning_curve=curve, seconds=seconds)
        if replaced := replaced_run(folder):
            print_notice(f"replaces {replaced}")
        run = save_run(folder, result)
        wrong = (error.unit_id for error in confident_errors(run))
        pictures = thumbnails_of_units(stores, wrong, view.task.unit) if thumbnails else None
        save_report(folder / REPORT_FILE, [run], thumbnails=pictures)
        return run

    def default_place(name: str) -> Path:
        return runs_folder / f"{view.task.name}-{name}{choices.suffix}"

    if head == ALL:
        probe_all(probed, default_place if out is None else out.joinpath, as_json=as_json)
        return
    folder = out or default_place(preset or head)
    require_run_folder(folder)
    run = probed(head, folder)
    report = folder / REPORT_FILE
    if as_json:
        print_json({"run": str(folder), "run_id": run.run_id, **run.document})
        return
    print_run(run, folder, report)


def _other_stores(stores: tuple[Path, ...], project: Project) -> list[str]:
    """Return the names of the stores, unless they are the project's own or there is only one and no project."""
    own = project.settings.get("store")
    if len(stores) == 1 and (own is None or stores[0].resolve() == Path(own).resolve()):
        return []
    return [path.resolve().name.removesuffix(".store") for path in stores]
