"""``embed verify``: re-read every byte."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cli.exit_codes import DONE, FAILED
from cli.key_options import key_option
from cli.options import ProjectCommand, json_option, print_json, print_notice, require, store_argument
from cli.printing.verification import (
    print_repair,
    print_sources,
    print_verification,
    verification_document,
)
from cli.project import shown
from embedstore.keys.key_file import read_key
from embedstore.manifest import path_from_manifest
from embedstore.queries.image_files import ImageFiles
from embedstore.revisions.sources import SourceCheck, check_sources
from embedstore.store.layout import FORMAT_VERSION
from embedstore.store.reader import open_store
from embedstore.store.repair import repair_store
from embedstore.store.upgrade import upgrade_store
from embedstore.store.verify import Verification, verify_store


@click.command(name="verify", cls=ProjectCommand)
@store_argument
@click.option(
    "--repair",
    is_flag=True,
    help="Heal what can be healed; damaged chunks are done again by the next extract.",
)
@click.option(
    "--upgrade",
    is_flag=True,
    help="First bring a store of an earlier format version to the present one; its vectors stay as they are.",
)
@click.option(
    "--sources",
    is_flag=True,
    help="Also digest the images' files and name those that are no longer what was read.",
)
@click.option(
    # Not called like the key of embed.toml, which may name a table.
    "--root",
    "files_below",
    type=click.Path(path_type=Path),
    help="Folder of these files.  [default: as extracted]",
)
@key_option
@json_option
def command(
    store_argument: Path | None,
    store: Path | None,
    repair: bool,
    upgrade: bool,
    sources: bool,
    files_below: Path | None,
    key_file: Path | None,
    as_json: bool,
) -> int:
    """Re-read every byte of a store against its receipts; name what is wrong by chunk and rows.

    \b
    Example:
      embed verify mura.store
    """
    path = Path(require(store_argument or store, "--store"))
    if upgrade and upgrade_store(path, say=print_notice):
        print_notice(f"{shown(path)}: upgraded to format version {FORMAT_VERSION}")
    if not repair:
        verification = verify_store(path)
        # A damaged store cannot be asked what its files were.
        found = _checked(path, files_below, key_file) if sources and not verification.findings else None
        _show(path, verification, found, as_json=as_json)
        return FAILED if verification.findings or (found is not None and found.changed) else DONE
    before = repair_store(path, say=print_notice)
    after = verify_store(path)
    if as_json:
        print_json(
            {
                "repaired": [asdict(finding) for finding in before.findings],
                **verification_document(path, after),
            }
        )
    elif before.findings:
        print_repair(path, before, after)
    else:
        print_verification(path, after)
    return FAILED if after.findings else DONE


def _checked(path: Path, root: Path | None, key_file: Path | None) -> SourceCheck:
    store = open_store(path)
    if root is None:
        return check_sources(store, ImageFiles(None if key_file is None else read_key(key_file)).paths(store))
    table = store.table
    pairs = zip(*(table.column(name).to_pylist() for name in ("image_id", "path")), strict=True)
    return check_sources(store, {name: path_from_manifest(root, place) for name, place in pairs if place})


def _show(path: Path, verification: Verification, found: SourceCheck | None, *, as_json: bool) -> None:
    if as_json:
        print_json(verification_document(path, verification, found))
        return
    print_verification(path, verification)
    if found is not None:
        print_sources(found)
