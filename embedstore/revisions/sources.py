"""The files behind a store's rows: whether they are still the ones that were read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from embedstore.errors import Reason
from embedstore.files import FileState, state_of
from embedstore.manifest import Manifest, path_from_manifest
from embedstore.store.part_reader import Part
from embedstore.store.reader import Store


def changed_rows(store: Store, wanted: Manifest, root: Path) -> dict[int, dict[int, str]]:
    """Return the finished rows whose file is another than the one that was read, or is there where none was.

    A file that is gone is no change: its vector stays what it was made of.

    Parameters
    ----------
    store
        The store.
    wanted
        The data set's records, whose paths count.
    root
        Folder of the paths.

    Returns
    -------
    dict
        Number of the part -> row of the part -> what changed, for people.
    """
    ids = wanted.table.column("image_id").combine_chunks()
    paths = wanted.table.column("path").combine_chunks()
    folder = str(root.absolute())
    found: dict[int, dict[int, str]] = {}
    states: dict[str, FileState | None] = {}
    for part in store.parts:
        if not any(receipt.sources for receipt in part.receipts.values()):
            continue
        at = pc.index_in(part.image_id_table().column("image_id").combine_chunks(), value_set=ids)
        path_of_row = paths.take(at).to_pylist()
        for row, before in _sources(part):
            path = path_of_row[row]
            if path is None:
                continue
            if path not in states:
                states[path] = state_of(
                    os.path.join(folder, path) if path.isascii() else str(path_from_manifest(root, path))
                )
            now = states[path]
            if now is not None and now != before:
                found.setdefault(part.plan.number, {})[row] = _words(before, now)
    return found


def _sources(part: Part) -> Iterator[tuple[int, FileState | None]]:
    """Yield row and file of every finished row; not of those that are computed again anyway."""
    for receipt in part.receipts.values():
        again = {failure.row for failure in receipt.failures if failure.reason is Reason.CHANGED}
        for row, source in enumerate(receipt.sources, start=receipt.start):
            if row not in again:
                yield row, source


def _words(before: FileState | None, now: FileState) -> str:
    if before is None:
        return "the file was missing and is there now"
    if before[0] != now[0]:
        return f"the file had {before[0]:,} bytes when it was read, and has {now[0]:,}"
    return "the file was written again since it was read"
