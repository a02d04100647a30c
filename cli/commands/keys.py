"""``embed keys``: the owner's way back from keyed ids."""

from __future__ import annotations

from pathlib import Path

import click

from cli.key_options import needed_key_option
from cli.options import ProjectCommand, json_option, print_json, require
from embedstore.keys.key_file import read_key
from embedstore.queries.owner_mapping import write_mapping
from embedstore.store.reader import open_store


@click.command(name="keys", cls=ProjectCommand)
@click.argument("mapping", type=click.Path(path_type=Path))
@needed_key_option
@click.option(
    "--store",
    "store",
    type=click.Path(path_type=Path),
    help="Only the ids of this store.  [default: all of the key]",
)
@json_option
def command(mapping: Path, key_file: Path | None, store: Path | None, as_json: bool) -> None:
    """Write who is who to MAPPING.csv: clinical ids beside the keyed ids of stores, and each image's file.

    It is made from the map that extractions keep beside the key, and may be read by its owner only. Never hand it on
    with a store.

    \b
    Example:
      embed keys private/mapping.csv --key-file private/hospital.key
    """
    key = read_key(require(key_file, "--key-file"))
    counts = write_mapping(mapping, key, store=None if store is None else open_store(store))
    if as_json:
        print_json({"file": str(mapping), "lines": dict(counts)})
    else:
        counted = ", ".join(f"{level} {count:,}" for level, count in counts.items())
        click.echo(f"wrote {mapping} (0600; it says who the patients are): {counted}")
