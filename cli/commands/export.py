"""``embed export``: hand the vectors on."""

from __future__ import annotations

from pathlib import Path

import click

from cli.key_options import key_option
from cli.options import ProjectCommand, json_option, plural, print_json, print_notice, require, store_option
from embedstore.errors import UsageError
from embedstore.exchange.export import VIEWERS, ExportOptions, ExportSummary, export_store
from embedstore.exchange.viewer_rows import NEIGHBORS
from embedstore.store.reader import open_store


@click.command(name="export", cls=ProjectCommand)
@click.argument("paths", nargs=-1, metavar="[STORE] TARGET", type=click.Path(path_type=Path), required=True)
@click.option(
    "--dtype",
    "file_dtype",  # the key `dtype` of embed.toml is the encoder's arithmetic
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Number format of the vectors; some readers have no float16, and netCDF4 must not be given one.",
)
@click.option("--normalise", is_flag=True, help="Divide every vector by its length.")
@click.option(
    "--with-labels", is_flag=True, help="Add a column label:TASK:TARGET for each target of each task."
)
@click.option("--keep-zero", is_flag=True, help="Also write rows whose vector is zero.")
@click.option(
    "--for",
    "viewer",
    type=click.Choice([*VIEWERS]),
    help="Add what a viewer wants: atlas (Parquet) places, neighbours and thumbnails, fiftyone (Parquet, CSV) the "
    "paths of files; both labels.",
)
@click.option(
    "--neighbors",
    type=click.IntRange(0),
    default=NEIGHBORS,
    show_default=True,
    help="With --for atlas: nearest images beside each, by exact cosine.",
)
@click.option(
    "--thumbnails/--no-thumbnails",
    default=True,
    show_default=True,
    help="With --for atlas: small pictures in the file; they are patients' images.",
)
@click.option("--force", is_flag=True, help="Replace TARGET if it is there.")
@key_option
@store_option
@json_option
def command(
    paths: tuple[Path, ...],
    file_dtype: str,
    normalise: bool,
    with_labels: bool,
    keep_zero: bool,
    viewer: str | None,
    neighbors: int,
    thumbnails: bool,
    force: bool,
    key_file: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Write every vector with its manifest row to TARGET (.h5, .npz or .parquet; .csv is all but the vectors).

    HDF5 also holds the tasks. docs/interop.md has a recipe for each of the tools that read these files.

    \b
    Example:
      embed export mura.store mura.parquet --with-labels
    """
    if len(paths) > 2:
        raise UsageError(f"give [STORE] TARGET; found {len(paths)} arguments")
    source = paths[0] if len(paths) == 2 else Path(require(store, "--store"))
    options = ExportOptions(
        dtype=file_dtype,
        normalise=normalise,
        with_labels=with_labels,
        keep_zero=keep_zero,
        force=force,
        viewer=viewer,
        neighbors=neighbors,
        thumbnails=thumbnails,
        key_file=key_file,
    )
    if file_dtype == "float16" and paths[-1].suffix.lower() in (".h5", ".hdf5"):
        print_notice(
            "float16: netCDF4, which xarray.open_dataset picks, ends its process on this file; h5py reads it"
        )
    summary = export_store(open_store(source), paths[-1], options)
    if as_json:
        left_out = {"failed": summary.failed, "pending": summary.pending, "zero": summary.zero}
        left_out |= {"without_file": summary.without_file} if summary.without_file else {}
        print_json(
            {"store": str(source), "target": str(paths[-1]), "rows": summary.rows, "left_out": left_out}
        )
    else:
        _print(summary)


def _print(summary: ExportSummary) -> None:
    click.echo(f"wrote {summary.target}: {plural(summary.rows, 'row')}")
    if summary.failed:
        click.echo(
            f"  left out: {plural(summary.failed, 'image')} without a vector (failed; `embed info` names them)"
        )
    if summary.pending:
        click.echo(f"  left out: {plural(summary.pending, 'image')} not extracted yet")
    if summary.without_file:
        click.echo(f"  left out: {plural(summary.without_file, 'image')} whose file is not where it lay")
    if summary.zero:
        click.echo(
            f"  left out: {plural(summary.zero, 'image')} whose vector is zero and has no direction; "
            "--keep-zero writes them too"
        )
