"""``embed probe``: phase two."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cli.completion import (
    complete_columns,
    complete_heads,
    complete_presets,
    complete_targets,
    complete_tasks,
)
from cli.jobs.open_probe import ProbeJob
from cli.jobs.probe_all import probe_all
from cli.jobs.probe_blend import probe_blend
from cli.jobs.probe_store import probe_store
from cli.jobs.probe_ways import WAYS, WaysJob, probe_ways
from cli.key_options import key_option
from cli.options import (
    ProjectCommand,
    json_option,
    keep_option,
    print_json,
    print_notice,
    project_of,
    require,
    stores_option,
    subgroups_option,
)
from cli.printing.head_table import (
    comparison_document,
    print_finished,
    print_finished_way,
    print_head_table,
    print_ways,
    ways_document,
)
from cli.printing.probe_progress import shown_stages
from cli.printing.run_summary import print_run
from cli.stop_signal import interrupted_at_stages
from embedstore.errors import UsageError
from heads.blending.blend import BLEND
from heads.estimators.presets import preset_names
from heads.inputs.class_weights import CLASS_WEIGHTS
from heads.inputs.pooling import PROBE_POOLINGS
from heads.protocol.fitting import FINALS
from heads.protocol.options import LEAST_REPEATS, MOST_REPEATS, ProbeOptions
from heads.protocol.splits import TRAINED_UNITS, TrainedUnits
from heads.stages import watched

_ALL = "all"
_FOLDS = "Patient folds; fewer where no target could be learned otherwise."
_USUAL = ProbeOptions()
# Options of the same name here and there.
_SHARED = {field.name for field in fields(ProbeOptions)} - {"head", "inputs", "device"}


@click.command(name="probe", cls=ProjectCommand)
@stores_option
@click.option("--task", shell_complete=complete_tasks, help="Task of the store.  [default: its only one]")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_targets,
    help="Only this target of the task; repeatable.",
)
@click.option(
    "--strict-targets",
    is_flag=True,
    help="Refuse targets that are too rare to learn.  [default: leave them out, and say which]",
)
@click.option(
    "--cross-validate", is_flag=True, help="Judge every unit out of fold, whatever official split there is."
)
@click.option(
    "--head",
    default=_USUAL.head,
    show_default=True,
    shell_complete=complete_heads,
    help="Head to fit, blend to join several, or all to compare them and their blend.",
)
@click.option(
    "--parts",
    metavar="HEAD,HEAD",
    help="Heads that --head blend joins, with commas between them.  [default: all that can run]",
)
@click.option(
    "--preset",
    shell_complete=complete_presets,
    metavar="NAME",
    help=f"A published protocol in place of --head: {', '.join(preset_names())}.",
)
@click.option(
    "--shots",
    type=click.IntRange(1),
    metavar="N",
    help="Learn from so many units only, one of each patient, the same ones in every store of them.  [default: all]",
)
@click.option(
    "--crops",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Store of level crops of the same lumbar studies: compares ways from slices and crops to a study's 25 "
    "severities, with --head or every head; repeatable (localised, oracle).",
)
@click.option(
    "--ways",
    metavar="WAY,WAY",
    help=f"Only these of {', '.join(WAYS)}, with commas between them.  [default: all for which there is a store, "
    "with --crops]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run folder; with --head all the folder that holds one for each.  [default: runs/TASK-HEAD, and what "
    "tells it from a run without options: runs/TASK-HEAD-cv]",
)
@click.option(
    "--pooling",
    type=click.Choice(PROBE_POOLINGS),
    help="How a study's images give one answer; binned has a mean for each kind of series and part of its stack.  "
    "[default: the task's]",
)
@click.option(
    "--with",
    "with_columns",
    metavar="COLUMN",
    shell_complete=complete_columns,
    multiple=True,
    help="Manifest column (anatomy, ...) that the head gets beside the vector; may be given several times.",
)
@subgroups_option
@click.option(
    "--select-inputs",
    is_flag=True,
    help="Choose the pooling, and whether --with helps, by out-of-fold log loss; costs one selection for each way.",
)
@click.option(
    "--select-imbalance",
    is_flag=True,
    help="Also try class weights, oversampling and the focal loss (mlp, attention) by out-of-fold log loss; each is "
    "undone in the probabilities.",
)
@click.option(
    "--class-weights",
    type=click.Choice(CLASS_WEIGHTS),
    default=_USUAL.class_weights,
    show_default=True,
    help="Weights in training; undone in the probabilities.",
)
@click.option(
    "--folds",
    type=click.IntRange(2),
    default=_USUAL.folds,
    show_default=True,
    help=_FOLDS,
)
@click.option(
    "--final",
    type=click.Choice(FINALS),
    default=_USUAL.final,
    show_default=True,
    help="What answers: one head refitted on all, or the mean of the heads of several partitions into folds.",
)
@click.option(
    "--repeats",
    type=click.IntRange(LEAST_REPEATS, MOST_REPEATS),
    help="Partitions of an ensemble.  [default: 4, and 2 for many images]",
)
@click.option(
    "--draws",
    type=click.IntRange(1),
    default=_USUAL.draws,
    show_default=True,
    help="Bootstrap draws of patients.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=_USUAL.coverage,
    show_default=True,
    help="Rate at which conformal sets shall hold the true class.",
)
@click.option(
    "--learning-curve",
    is_flag=True,
    help="Also learn from 64, 128, ... patients, 5 times each.",
)
@click.option(
    "--bank/--no-bank",
    default=True,
    show_default=True,
    help="Keep vectors of training images, by which predictions say what is unlike them. They are patients' data.",
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
@click.option(
    "--trained-patients",
    type=click.Choice(TRAINED_UNITS),
    default="refuse",
    show_default=True,
    help="Patients on whom the store's encoder was fine-tuned: refuse them, leave them out, or use them all the same.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=_USUAL.seed, show_default=True, help="Seed of folds and draws."
)
@keep_option
@click.option("--verbose", is_flag=True, help="Print every stage to stderr, also where that is no terminal.")
@key_option
@click.option("--runs", hidden=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Fit, select, calibrate and evaluate a head on the vectors of a store; leave a run folder with its report.

    Several stores of one identity are used as one when --store is given for each.

    \b
    Example:
      embed probe --store mura.store --task abnormal --head logistic
    """
    verbose, as_json = given.pop("verbose"), given.pop("as_json")
    crops, ways = given.pop("crops"), given.pop("ways")
    job = _job(context, **given)
    if crops or ways:
        rows = verbose or not as_json
        of_ways = WaysJob(
            slices=job, crops=crops, ways=[] if ways is None else _listed(ways, "--ways", "ways")
        )
        with shown_stages(verbose=verbose) as shown, interrupted_at_stages(shown) as watch, watched(watch):
            found = probe_ways(
                of_ways,
                notify=print_notice,
                finished=print_finished_way if rows else lambda _way, _head, _run: None,
            )
        print_json(ways_document(found)) if as_json else print_ways(found)
        return
    if given["preset"] is None and given["head"] == _ALL:
        rows = verbose or not as_json
        with shown_stages(verbose=verbose) as shown, interrupted_at_stages(shown) as watch, watched(watch):
            compared = probe_all(
                job, notify=print_notice, finished=print_finished if rows else lambda _name, _run: None
            )
        if as_json:
            print_json(comparison_document(compared))
        else:
            print_head_table(compared, stores=job.stores)
        return
    with shown_stages(verbose=verbose) as shown, interrupted_at_stages(shown) as watch, watched(watch):
        # A preset brings its own head.
        joins = given["preset"] is None and given["head"] == BLEND
        run = probe_blend(job, notify=print_notice) if joins else probe_store(job, notify=print_notice)
    if as_json:
        print_json({"run": str(run.folder), **run.document, "run_id": run.run_id, **run.timing})
    else:
        print_run(run, stores=job.stores)


def _job(
    context: click.Context,
    *,
    store: tuple[Path, ...],
    task: str | None,
    head: str,
    out: Path | None,
    runs: Path | None,
    thumbnails: bool,
    encoder: str | None,
    prompts: Path | None,
    key_file: Path | None,
    fit_device: str,
    subgroups: tuple[str, ...],
    parts: str | None,
    trained_patients: TrainedUnits,
    keep_list: Path | None,
    **given: Any,
) -> ProbeJob:
    """Return what was asked for; options that contradict each other are refused in their own words."""
    if given["preset"] is not None:
        if context.get_parameter_source("head") is ParameterSource.COMMANDLINE:
            raise UsageError(f"--preset {given['preset']} brings its own head; leave --head {head} out")
        # embed.toml's head is not meant.
        head = _USUAL.head
    if given["select_inputs"] and given["pooling"] is not None:
        raise UsageError(f"--select-inputs chooses the pooling; leave --pooling {given['pooling']} out")
    if parts is not None and head != BLEND:
        raise UsageError(f"--parts names the heads that --head {BLEND} joins; found --head {head}")
    shared = {name: entry for name, entry in given.items() if name in _SHARED}
    project = project_of(context)
    return ProbeJob(
        stores=require(store or None, "--store"),
        task=task,
        options=ProbeOptions(head=head, device=fit_device, **shared),
        out=out,
        runs=runs or project.folder / "runs",
        own_store=project.settings.get("store"),
        thumbnails=thumbnails,
        encoder=encoder,
        prompts=prompts,
        key_file=key_file,
        subgroups=subgroups,
        parts=[] if parts is None else _listed(parts, "--parts", "heads"),
        trained_patients=trained_patients,
        keep_list=keep_list,
    )


def _listed(named: str, option: str, what: str) -> list[str]:
    """Return the names between commas; raises UsageError where one is missing."""
    names = [name.strip() for name in named.split(",")]
    if not all(names):
        raise UsageError(f"{option} must be names of {what} with commas between them; found {named!r}")
    return names
