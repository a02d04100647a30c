"""``embed export``: hand the vectors on."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import ProjectCommand, json_option, plural, print_json, print_notice, require, store_option
from embedstore.errors import UsageError
from embedstore.store.export import export_store
from embedstore.store.reader import open_store


@click.command(name="export", cls=ProjectCommand)
@click.argument("paths", nargs=-1, metavar="[STORE] TARGET", type=click.Path(path_type=Path), required=True)
@store_option
@json_option
def command(paths: tuple[Path, ...], store: Path | None, as_json: bool) -> None:
    """Write every vector with its manifest row to TARGET (.h5, .npz or .parquet).

    HDF5 also holds the tasks with their labels; npz and Parquet hold the vectors with their manifest rows.

    \b
    Example:
      embed export mura.store mura.h5
    """
    if len(paths) > 2:
        raise UsageError(f"give [STORE] TARGET; found {len(paths)} arguments")
    source = paths[0] if len(paths) == 2 else Path(require(store, "--store"))
    if paths[-1].is_file():
        print_notice(f"replaces {paths[-1]}")
    rows = export_store(open_store(source), paths[-1])
    if as_json:
        print_json({"store": str(source), "target": str(paths[-1]), "rows": rows})
    else:
        click.echo(f"wrote {paths[-1]}: {plural(rows, 'row')}")
