"""``embed extract``: phase one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.completion import complete_encoders, complete_preprocess
from cli.dataset_options import dataset_options, reader_options, without_foreign_key
from cli.exit_codes import DONE, IMAGES_FAILED, STOPPED
from cli.jobs.describe_store import described_task
from cli.jobs.extract_store import EncoderChoice, ExtractJob, default_workers, dry_run_store, extract_store
from cli.options import (
    ProjectCommand,
    is_typed,
    json_option,
    keep_option,
    print_facts,
    print_notice,
    project_of,
    require,
    store_option,
    where_option,
)
from cli.own_options import encoder_option, encoder_options_of
from cli.printing.dry_run import print_dry_run
from cli.printing.extract_summary import print_summary
from cli.printing.next_command import print_next_probe
from cli.printing.progress import shown_progress
from cli.stop_signal import stop_on_signal
from cli.wording import in_options
from embedstore.audit.keep_list import read_keep_list, without_left_out
from embedstore.crops.crop_collection import points_of_run, with_crops
from embedstore.datasets.base import Collection, dataset_reader
from embedstore.errors import UsageError
from embedstore.extraction.options import Choose, ExtractOptions
from embedstore.extraction.progress import Observer
from embedstore.extraction.shard import parse_shard
from embedstore.lumbar.crop_rule import DEFAULT_SIZE_MM, ORACLE, CropRule
from embedstore.lumbar.level_points import LevelPoints
from embedstore.queries.conditions import parse_conditions, select_records


@click.command(name="extract", cls=ProjectCommand)
@dataset_options
@store_option
@click.option(
    "--encoder", default="hog", show_default=True, help="Encoder.", shell_complete=complete_encoders
)
@encoder_option
@click.option(
    "--preprocess",
    shell_complete=complete_preprocess,
    help="Preset: pad, eval or hf.  [default: the encoder's own]",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:1, ...; several with commas (one process each), or all.",
)
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    help="Arithmetic of the encoder; auto is the store's own where there is one.",
)
@click.option(
    "--revision", help="Branch, tag or commit of a hub id.  [default: what the cache has, else main]"
)
@click.option(
    "--encoder-pooling", help="How patch tokens become one vector: map or mean.  [default: the encoder's]"
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Also keep each token of the encoder's grid, projected to N numbers where it has more.  "
    "[default: as in the store; none in a new one]",
)
@click.option(
    "--execution",
    type=click.Choice(["eager", "compile", "graph"]),
    help="How the encoder's passes run.  [default: the device's]",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per forward pass."
)
@click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes.  [default: one per core, at most 16]"
)
@click.option(
    "--chunk-rows",
    type=click.IntRange(1),
    help="Rows of a chunk in new parts.  [default: 16 MiB of its largest array, at most 256]",
)
@click.option(
    "--store-dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Number format of new parts.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="This machine, or every node of a Ray cluster.",
)
@click.option(
    "--ray-address", default="local", show_default=True, help="Ray cluster: local, auto or HOST:PORT."
)
@click.option(
    "--crops",
    metavar="RUN|oracle",
    help="Embed crops around level points: of a run of `embed localise`, or the data set's true coordinates.",
)
@click.option("--crop-mm", type=float, help="Side of a crop.  [default: as in the store; 50 in a new one]")
@click.option(
    "--crop-neighbours",
    type=click.IntRange(0),
    help="Slices on each side of the nearest one.  [default: as in the store; 1 in a new one]",
)
@where_option
@keep_option
@click.option("--limit", type=click.IntRange(1), help="Only the first N images of the data set.")
@click.option(
    "--shard", metavar="I/N", help="Only this share of the chunks, while other processes do others."
)
@click.option("--retry-failed", "retry", is_flag=True, help="Also try images again that failed before.")
@click.option(
    "--max-failed",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of failed images up to which the exit code stays 0.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only say what would be read and refused, and what it would cost."
)
@click.option("--strict", is_flag=True, help="Exit code 3 if any image failed.")
@click.option("--verbose", is_flag=True, help="Also say where the time went; --json always does.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    store: Path | None,
    max_failed: float,
    strict: bool,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Turn every image of a data set into a vector, once; run it again to continue or to add images.

    \b
    Example:
      embed extract --dataset mura --root MURA-v1.1 --store mura.store --encoder hog
    """
    target = Path(require(store, "--store"))
    settings = project_of(context).settings
    # What the command line says wrongly is refused before the data set is read, which may take minutes.
    encoder, options = _encoder(given, settings), _options(given)
    encoder.require_known()
    collection = _collection(context, given, target)
    if not as_json:
        print_facts(in_options(collection.summary))
    job = ExtractJob(
        collection=collection,
        store=target,
        encoder=encoder,
        devices=given["device"],
        ray_address=given["ray_address"] if given["engine"] == "ray" else None,
        choose=Choose.NEW_OR_FAILED if given["retry"] else Choose.NEW,
        options=options,
    )
    if dry_run:
        paths: Mapping[str, str] = {}
        if collection.key is not None and collection.key.is_new:
            print_notice(
                f"there is no key file {collection.key.path}: a dry run makes none and counts with a key that it "
                "forgets, so files are named by their paths; the extraction makes the file"
            )
            paths = collection.manifest.paths
        print_dry_run(dry_run_store(job), data=_described(collection), as_json=as_json, paths=paths)
        return DONE
    with shown_progress() as progress, stop_on_signal() as stopping:
        observer = Observer(say=print_notice, progress=progress, stopping=stopping)
        summary = extract_store(job, observer=observer)
    allowed = 0.0 if strict else max_failed
    print_summary(
        summary, target, data=_described(collection), allowed=allowed, verbose=verbose, as_json=as_json
    )
    if summary.interrupted:
        return STOPPED
    if not as_json and summary.valid and not summary.pending:
        print_next_probe(target)
    return IMAGES_FAILED if summary.failed_share > allowed else DONE


def _collection(context: click.Context, given: Mapping[str, Any], store: Path) -> Collection:
    """Read the data set that the options and ``embed.toml`` name, or its crops."""
    name, root = require(given["dataset"], "--dataset"), given["root"]
    settings = project_of(context).settings
    crops = _crops(given)
    # Options in embed.toml belong to the reader there, and to no other.
    own = settings.get("options", {}) if settings.get("dataset", name) == name else {}
    typed = is_typed(context, "key_file")
    reader = dataset_reader(name, without_foreign_key(reader_options(given, own), name, typed=typed))
    collection = reader.read(Path(require(root, "--root")))
    if crops is not None:
        size_mm, neighbours = given["crop_mm"], given["crop_neighbours"]
        collection = with_crops(collection, crops, size_mm=size_mm, neighbours=neighbours, store=store)
    if given["keep_list"] is not None:
        collection = without_left_out(collection, read_keep_list(given["keep_list"]))
    return select_records(collection, parse_conditions(given["where"]))


def _crops(given: Mapping[str, Any]) -> str | LevelPoints | None:
    """Return where crops are to be cut, as far as that is known before the data set is read."""
    crops, size_mm = given["crops"], given["crop_mm"]
    if crops is None and (size_mm is not None or given["crop_neighbours"] is not None):
        raise UsageError("`crop_mm` and `crop_neighbours` are for crops; give `crops` as well")
    CropRule(DEFAULT_SIZE_MM if size_mm is None else size_mm)
    return crops if crops in (None, ORACLE) else points_of_run(crops)


def _described(collection: Collection) -> dict[str, Any]:
    """Return what the reader says of the data set, and its tasks."""
    tasks = [described_task(task) for task in collection.tasks]
    return {"data_set": in_options(collection.summary), "tasks": tasks}


def _encoder(given: Mapping[str, Any], settings: Mapping[str, Any]) -> EncoderChoice:
    """Return the encoder that the options ask for."""
    return EncoderChoice(
        name=given["encoder"],
        preset=given["preprocess"],
        dtype=given["dtype"],
        revision=given["revision"],
        pooling=given["encoder_pooling"],
        execution=given["execution"],
        tokens=given["tokens"],
        options=encoder_options_of(given["encoder"], given["encoder_option"], settings),
    )


def _options(given: Mapping[str, Any]) -> ExtractOptions:
    """Return how the options ask for the extraction to run."""
    return ExtractOptions(
        chunk_rows=given["chunk_rows"],
        store_dtype=given["store_dtype"],
        batch_size=given["batch_size"],
        workers=given["workers"] or default_workers(),
        limit=given["limit"],
        shard=parse_shard(given["shard"]) if given["shard"] else None,
    )
