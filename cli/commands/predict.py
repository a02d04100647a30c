"""``embed predict``: answers for images, study folders or a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from cli.exit_codes import DONE, IMAGES_FAILED
from cli.jobs.metadata_values import given_metadata, require_metadata, with_metadata
from cli.options import ProjectCommand, plural, print_notice, store_option
from cli.project import shown
from embedstore.encoders.registry import encoder_of_identity
from embedstore.errors import UsageError
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.embed_images import embed_records
from embedstore.queries.load_view import lacking_units, load_units
from embedstore.queries.nearest_cases import nearest_cases
from embedstore.queries.user_files import gather_inputs
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import read_task, task_names
from embedstore.task import UNIT_WORDS, unit_key, units_in_words
from embedstore.view import Units
from heads.runs.answers import predict_units
from heads.runs.run import Run, load_run


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
    default=3,
    show_default=True,
    help="Nearest labelled cases of --store to name, for files; for a store as INPUT only when asked for.",
)
@store_option
@click.option("--out", type=click.Path(path_type=Path), help="Write .jsonl or .parquet instead of printing.")
@click.option("--encoder", help="Folder or hub id of the run's encoder.  [default: its registered name]")
@click.option("--device", default="auto", show_default=True, help="Device of the encoder.")
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
) -> int:
    """Answer for images, study folders or a store with calibrated probabilities, as JSON lines.

    The images directly in one folder are one study.

    \b
    Example:
      embed predict --probe runs/abnormal-logistic MURA-v1.1/valid/XR_ELBOW/patient00022/study1_positive
    """
    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"--out: the suffix must be .jsonl or .parquet; found {out.suffix!r}")
    run = load_run(run_folder)
    unit = run.document["task"]["unit"]
    given = given_metadata(run, with_values)
    failed: list[str] = []
    paths: dict[str, Path] = {}
    if len(inputs) == 1 and (inputs[0] / "store.json").is_file():
        units = _units_of_store(run, inputs[0], unit, given)
        # One search an image: a whole store is searched only when somebody wants to wait for it.
        if context.get_parameter_source("neighbors") is not ParameterSource.COMMANDLINE:
            neighbors = 0
    else:
        # Before the encoder is loaded and the images are decoded.
        _require_files_suffice(run, unit)
        require_metadata(run, list(given), what="images bring none")
        units, failed, paths = _units_of_files(run, inputs, unit, encoder, device)
    units = with_metadata(run, units, given)
    predictions = []
    if len(units.unit_ids):
        predictions = predict_units(
            run,
            units.X,
            units.unit_of_image,
            units.unit_ids.tolist(),
            threshold=threshold,
            prevalence=prevalence,
            metadata=units.metadata,
            content_sha256=units.content_sha256,
            image_of_target=units.image_of_target,
        )
        known = _store_of_cases(run, store, named=_is_named(context)) if neighbors else None
        if known is not None:
            task = read_task(known.path, run.document["task"]["name"])
            cases = nearest_cases(known, task, units, paths, count=neighbors)
            for prediction, nearest in zip(predictions, cases, strict=True):
                prediction["neighbors"] = nearest
    for line in failed:
        click.echo(f"no vector: {line}", err=True)
    if out is None:
        for prediction in predictions:
            click.echo(json.dumps(prediction, ensure_ascii=False))
    else:
        _write(out, predictions)
        click.echo(f"wrote {out}: {plural(len(predictions), 'prediction')}")
    return IMAGES_FAILED if failed else DONE


def _units_of_store(run: Run, path: Path, unit: str, given: Mapping[str, str]) -> Units:
    store = open_store(path)
    run.require_identity(store.identity)
    wanted = run.predictor.blocks.columns if run.predictor.blocks else ()
    held = [column for column in wanted if column in store.table.column_names]
    for column in held:
        if column in given:
            raise UsageError(f"--with {column}={given[column]}: store {path} has the column {column} itself")
    require_metadata(run, [*held, *given], what=f"store {path} has no such column")
    _say_lacking(store, unit)
    return load_units(store, unit, with_columns=held, image_rules=run.image_rules)


def _say_lacking(store: Store, unit: str) -> None:
    """Say on stderr which units of the store get no answer, or one from a part of their images."""
    lacking = lacking_units(store, unit)
    images = [(lacking.pending, "pending"), (lacking.failed, "failed")]
    counted = " and ".join(f"{plural(count, 'image')} {state}" for count, state in images if count)
    if not counted:
        return
    units = units_in_words(unit)
    partial = f", {lacking.partial:,} an answer without some of their images" if lacking.partial else ""
    advice = "; run `embed extract`" if lacking.pending else ""
    print_notice(f"{shown(store.path)}: {counted}: {lacking.absent:,} {units} get no answer{partial}{advice}")


def _require_files_suffice(run: Run, unit: str) -> None:
    """Refuse files where the run needs columns of a manifest to tell units, or the images of a target, apart."""
    columns = {column for column in unit_key(unit) if column not in UNIT_WORDS}
    columns |= {rule.column for rule in run.image_rules if rule is not None}
    if columns:
        raise UsageError(
            f"run {run.folder} needs the columns {', '.join(sorted(columns))} of every image, which files do not "
            "bring; extract them into a store with these columns and give the store as INPUT"
        )


def _units_of_files(
    run: Run, inputs: tuple[Path, ...], unit: str, encoder_name: str | None, device: str
) -> tuple[Units, list[str], dict[str, Path]]:
    encoder = encoder_of_identity(
        run.identity, holder=f"run {run.folder}", name=encoder_name, device=device, say=print_notice
    )
    gathered = gather_inputs(inputs)
    embedded = embed_records(gathered.records, gathered.root, encoder)
    failed = [
        f"{gathered.records[row].path}: {reason}: {message}"
        for row, (reason, message) in embedded.failures.items()
    ]
    kept = [row for row in range(len(gathered.records)) if row not in embedded.failures]
    image_ids = [gathered.records[row].image_id for row in kept]
    names = [gathered.studies[row] for row in kept] if unit == "study" else image_ids
    number = {name: position for position, name in enumerate(dict.fromkeys(names))}
    units = Units(
        X=embedded.vectors[kept],
        image_ids=np.array(image_ids, dtype=np.str_),
        content_sha256=embedded.content_sha256[kept],
        unit_of_image=np.array([number[name] for name in names], dtype=np.int64),
        unit_ids=np.array(list(number), dtype=np.str_),
    )
    paths = {
        gathered.records[row].image_id: path_from_manifest(gathered.root, gathered.records[row].path)
        for row in kept
    }
    return units, failed, paths


def _is_named(context: click.Context) -> bool:
    return context.get_parameter_source("store") is ParameterSource.COMMANDLINE


def _store_of_cases(run: Run, path: Path | None, *, named: bool) -> Store | None:
    """Open the store to look for cases in; one that only ``embed.toml`` names may be of another kind."""
    if path is None or not (named or (path / "store.json").is_file()):
        return None
    store = open_store(path)
    if not named and store.identity.sha256 != run.identity.sha256:
        return None
    run.require_identity(store.identity)
    if run.document["task"]["name"] not in task_names(store.path):
        if named:
            raise UsageError(
                f"--store: {path} has no task {run.document['task']['name']!r}, so no labelled cases"
            )
        return None
    return store


def _write(out: Path, predictions: list[dict[str, Any]]) -> None:
    if out.suffix == ".jsonl":
        out.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in predictions))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(_flat(predictions))), out)


def _flat(predictions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one row per unit and target, with a column per class."""
    for entry in predictions:
        for target, answer in entry["targets"].items():
            yield {
                "unit_id": entry["unit_id"],
                "target": target,
                **{
                    f"prob_{name}": (answer["probabilities"] or {}).get(name)
                    for name in answer["prevalence"]["assumed"]
                },
                "decision": answer["decision"],
                "threshold": answer.get("threshold"),
                "conformal_set": answer["conformal_set"],
                **{f"prevalence_{name}": share for name, share in answer["prevalence"]["assumed"].items()},
                "prevalence_source": answer["prevalence"]["source"],
                **{f"ood_p_{method}": p for method, p in entry["ood_p_value"].items()},
                "images": entry["images"],
                "learned_from": entry["learned_from"],
                "run_id": entry["run_id"],
            }
