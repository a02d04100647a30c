"""``embed import``: a store of vectors that another tool has computed."""  # noqa: N999 - found by the name of its command

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cli.exit_codes import DONE, IMAGES_FAILED
from cli.options import ProjectCommand, json_option, print_json, print_notice, require, store_option
from cli.printing.import_summary import import_document, print_import
from embedstore.errors import UsageError
from embedstore.exchange.declared import parse_declaration
from embedstore.exchange.import_store import ImportOptions, import_vectors


@click.command(name="import", cls=ProjectCommand)
@click.argument("features", type=click.Path(path_type=Path))
@store_option
@click.option(
    "--declare",
    multiple=True,
    metavar="NAME=VALUE,...",
    help="What the vectors are: encoder=NAME at least, revision, weights_sha256, and whatever else; repeatable.",
)
@click.option(
    "--id-column",
    help="Array or column of FEATURES with the ids.  [default: none; files with coords, and those of a folder, are "
    "slides with patches]",
)
@click.option(
    "--array", help="Array or column with the vectors, or a pattern of columns: 'f*'.  [default: found]"
)
@click.option("--manifest", type=click.Path(path_type=Path), help="Table of the images, or of the slides.")
@click.option(
    "--manifest-id-column", help="Its column with their ids.  [default: image_id; slide_id for slides]"
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=OWN",
    help="Manifest column and the table's name for it (patient_id=case_id); repeatable.",
)
@click.option("--in-order", is_flag=True, help="FEATURES has a row for each row of the table, in its order.")
@click.option(
    "--store-dtype",
    type=click.Choice(["float16", "float32"]),
    help="Number format of the store.  [default: float16 if FEATURES is, else float32]",
)
@click.option("--chunk-rows", type=click.IntRange(1), help="Rows of a chunk.  [default: 16 MiB, at most 256]")
@click.option(
    "--max-failed",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Share of vectors that cannot be kept (NaN, infinity) up to which the exit code stays 0.",
)
@json_option
def command(
    features: Path,
    store: Path | None,
    declare: tuple[str, ...],
    id_column: str | None,
    array: str | None,
    manifest: Path | None,
    manifest_id_column: str | None,
    columns: tuple[str, ...],
    in_order: bool,
    store_dtype: str | None,
    chunk_rows: int | None,
    max_failed: float,
    as_json: bool,
) -> int:
    """Make a store of FEATURES that another tool has computed.

    FEATURES is an .h5, .npz, .npy, .parquet or .safetensors file, or a folder with one for each slide.
    Its vectors are declared, not computed: probe, search by id and export work as ever, and no image is encoded for it.

    \b
    Example:
      embed import h5_files --declare encoder=uni2,patch_px=256 --manifest slides.csv --store slides.store
    """
    target = Path(require(store, "--store"))
    options = ImportOptions(
        id_column=id_column,
        array=array,
        in_order=in_order,
        manifest_id_column=manifest_id_column,
        columns=_mapping(columns),
        store_dtype=store_dtype,
        chunk_rows=chunk_rows,
    )
    summary = import_vectors(
        features,
        target,
        declare=parse_declaration(declare),
        manifest=manifest,
        options=options,
        say=print_notice,
    )
    if as_json:
        print_json(import_document(summary, target))
    else:
        print_import(summary, target)
    return IMAGES_FAILED if summary.failed_share > max_failed else DONE


def _mapping(columns: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in columns]
    wrong = [text for text, (name, _, own) in zip(columns, pairs, strict=True) if not name or not own]
    if wrong:
        raise UsageError(f"--column takes NAME=OWN; found {wrong[0]!r}")
    return {name: own for name, _, own in pairs}
