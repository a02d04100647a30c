"""``embed predict``: answers for images, study folders or a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.completion import complete_runs
from cli.exit_codes import DONE, IMAGES_FAILED, STOPPED
from cli.jobs.extract_store import default_workers
from cli.jobs.metadata_values import metadata_pairs
from cli.jobs.predict_inputs import Answering, open_answers
from cli.key_options import by_option
from cli.options import (
    ProjectCommand,
    is_typed,
    plural,
    print_notice,
    project_of,
    store_option,
    where_option,
)
from cli.printing.answer_progress import shown_answers
from cli.printing.prediction_file import (
    CODES,
    COMPACT,
    FULL,
    STDOUT,
    SUBMISSION,
    open_predictions,
    require_prediction_file,
)
from cli.project import Project
from cli.stop_signal import stop_on_signal
from cli.studying.predict_options import NEAREST, PredictOptions, ProjectData
from embedstore.encoders.registry import encoder_names


@click.command(name="predict", cls=ProjectCommand)
@click.argument("inputs", nargs=-1, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option(
    "--probe",
    "run_folder",
    required=True,
    shell_complete=complete_runs,
    type=click.Path(path_type=Path),
    help="The run of a probe.",
)
@click.option(
    "--id",
    "ids",
    multiple=True,
    metavar="ID",
    help="A unit of --store, or one of its images, instead of INPUT; repeatable.",
)
@where_option
@click.option(
    "--threshold",
    default="half",
    show_default=True,
    help="Rule of the run (half, youden, sensitivity-0.90, ...) or a number; of grades it decides for the gravest one "
    "that reaches its own threshold, and half for the likeliest class.",
)
@click.option(
    "--prevalence",
    metavar="SHARE|em",
    help="Share of the positive class where these cases come from (0.05 or 5%; several classes: one share each, with "
    "commas), or em to estimate it from them.  [default: that of training]",
)
@click.option(
    "--with",
    "with_values",
    metavar="COLUMN=VALUE",
    multiple=True,
    help="Metadata of all INPUT that the run was fitted with (anatomy=XR_WRIST); a store brings its own, and so do "
    "files of its data set.",
)
@click.option(
    "--neighbors",
    type=click.IntRange(0),
    default=NEAREST,
    show_default=True,
    help="Nearest labelled cases of --store to name, for files; for a store as INPUT only when asked for.",
)
@store_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=STDOUT,
    help="Write .csv, .jsonl or .parquet; - is stdout.  [default: JSON lines on stdout]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([FULL, COMPACT, CODES, SUBMISSION]),
    default=FULL,
    show_default=True,
    help="All that is known of an answer; what one looks at first; of RSNA lumbar studies severity codes, as "
    "generative models print them; or that competition's file: probabilities times (1, 2, 4), by which it scores best.",
)
@click.option(
    "--levels",
    type=click.Path(path_type=Path),
    help="Of a run over lumbar crops, the localiser's run.  [default: found beside the run or by embed.toml]",
)
@click.option(
    "--paths/--no-paths",
    "with_paths",
    default=True,
    show_default=True,
    help="Name a unit's first file beside its id; folders of archives are named after patients.",
)
@click.option("--encoder", help="Folder or hub id of the run's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes.  [default: one per core, at most 16]"
)
@click.option(
    "--json", is_flag=True, expose_value=False, help="JSON lines, which answers are without it too."
)
@by_option
@click.pass_context
def command(context: click.Context, /, *, inputs: tuple[Path, ...], run_folder: Path, **given: Any) -> int:
    """Answer for images, study folders or a store with calibrated probabilities, as JSON lines.

    One study is answered once, in however many folders it lies. DICOM files belong to the study that they name; the
    pictures directly in one folder are one study.

    \b
    Example:
      embed predict --probe runs/abnormal-logistic MURA-v1.1/valid/XR_ELBOW/patient00022/study1_positive
    """
    require_prediction_file(given["out"], given["form"])
    answering = open_answers(run_folder, inputs, _options(context, given), notify=print_notice)
    return _write(answering, given["out"], given["form"])


def _write(answering: Answering, out: Path, form: str) -> int:
    """Write the answers as they come, and say how it went."""
    units = failed = 0
    stays = "answers so far stay" if out == STDOUT else f"answers so far are written to {out}"
    if out.is_file():
        print_notice(f"replaces {out}")
    with (
        shown_answers(answering.images) as progress,
        stop_on_signal(stays) as stopping,
        open_predictions(out, form) as write,
    ):
        for batch in answering.batches(stopping, progress.say):
            for line in batch.failed:
                progress.say(f"no vector: {line}")
            with progress.above():
                write(batch.units)
            units, failed = units + len(batch.units), failed + len(batch.failed)
            progress.add(batch.images, len(batch.failed))
        stopped = stopping()
        progress.end()
    if stopped:
        print_notice(f"stopped: {units:,} of {plural(answering.units, 'unit')} answered")
    if out != STDOUT:
        click.echo(f"wrote {out}: {plural(units, 'prediction')}")
    if stopped:
        return STOPPED
    return IMAGES_FAILED if failed else DONE


def _options(context: click.Context, given: Mapping[str, Any]) -> PredictOptions:
    project, named = project_of(context), is_typed(context, "levels")
    encoder = given["encoder"]
    if not is_typed(context, "encoder") and encoder in encoder_names():
        encoder = None  # embed.toml's is that of its store; a run knows the name of its own
    runs = project.settings.get("runs", project.folder / "runs")
    return PredictOptions(
        threshold=given["threshold"],
        prevalence=given["prevalence"],
        metadata=metadata_pairs(given["with_values"]),
        neighbors=given["neighbors"] if is_typed(context, "neighbors") else None,
        cases=given["store"],
        # A store that only embed.toml names may be of another kind.
        cases_must_fit=is_typed(context, "store") or bool(given["ids"] or given["where"]),
        ids=given["ids"],
        where=given["where"],
        project=_data_of(project),
        encoder=encoder,
        device=given["device"],
        workers=given["workers"] or default_workers(),
        key_file=given["key_file"],
        by=given["by"],
        with_paths=given["with_paths"],
        levels=given["levels"] if named else None,
        level_places=[runs] if named or given["levels"] is None else [given["levels"], runs],
    )


def _data_of(project: Project) -> ProjectData:
    settings = project.settings
    root = settings.get("root")
    return ProjectData(
        folder=project.folder,
        dataset=settings.get("dataset"),
        root=None if root is None else Path(root),
        options=settings.get("options", {}),
    )
