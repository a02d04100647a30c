"""``embed predict``: answers for images, study folders or a store."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.core import ParameterSource

from cli.exit_codes import DONE, IMAGES_FAILED
from cli.jobs.metadata_values import metadata_pairs
from cli.jobs.predict_inputs import NEAREST, PredictOptions, predict_inputs
from cli.jobs.prediction_file import require_prediction_file, write_predictions
from cli.key_options import key_option
from cli.options import ProjectCommand, plural, print_notice, store_option


@click.command(name="predict", cls=ProjectCommand)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path))
@click.option(
    "--probe", "run_folder", required=True, type=click.Path(path_type=Path), help="The run of a probe."
)
@click.option(
    "--threshold", default="half", show_default=True, help="Rule of the run (half, youden, ...) or a number."
)
@click.option(
    "--prevalence",
    metavar="SHARE|em",
    help="Share of the positive class where these cases come from (several classes: one share each, with commas), "
    "or em to estimate it from them.  [default: that of training]",
)
@click.option(
    "--with",
    "with_values",
    metavar="COLUMN=VALUE",
    multiple=True,
    help="Metadata of all INPUT that the run was fitted with (anatomy=XR_WRIST); a store brings its own.",
)
@click.option(
    "--neighbors",
    type=click.IntRange(0),
    default=NEAREST,
    show_default=True,
    help="Nearest labelled cases of --store to name, for files; for a store as INPUT only when asked for.",
)
@store_option
@click.option("--out", type=click.Path(path_type=Path), help="Write .jsonl or .parquet instead of printing.")
@click.option("--encoder", help="Folder or hub id of the run's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
@key_option
@click.pass_context
def command(
    context: click.Context,
    inputs: tuple[Path, ...],
    run_folder: Path,
    threshold: str,
    prevalence: str | None,
    with_values: tuple[str, ...],
    neighbors: int,
    store: Path | None,
    out: Path | None,
    encoder: str | None,
    device: str,
    key_file: Path | None,
) -> int:
    """Answer for images, study folders or a store with calibrated probabilities, as JSON lines.

    The images directly in one folder are one study.

    \b
    Example:
      embed predict --probe runs/abnormal-logistic MURA-v1.1/valid/XR_ELBOW/patient00022/study1_positive
    """
    if out is not None:
        require_prediction_file(out)
    options = PredictOptions(
        threshold=threshold,
        prevalence=prevalence,
        metadata=metadata_pairs(with_values),
        neighbors=neighbors if _is_named(context, "neighbors") else None,
        cases=store,
        # A store that only embed.toml names may be of another kind.
        cases_must_fit=_is_named(context, "store"),
        encoder=encoder,
        device=device,
        key_file=key_file,
    )
    answers = predict_inputs(run_folder, inputs, options, notify=print_notice)
    for line in answers.failed:
        print_notice(f"no vector: {line}")
    if out is None:
        for answer in answers.units:
            click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        if out.is_file():
            print_notice(f"replaces {out}")
        write_predictions(out, answers.units)
        click.echo(f"wrote {out}: {plural(len(answers.units), 'prediction')}")
    return IMAGES_FAILED if answers.failed else DONE


def _is_named(context: click.Context, name: str) -> bool:
    """Say whether an option stands on the command line itself."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
