"""The files behind a store's rows: whether they are still the ones that were read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pyarrow.compute as pc

from embedstore.errors import Reason
from embedstore.files import ABSENT, FileState, digest_of, digested, state_of
from embedstore.manifest import Manifest, path_from_manifest
from embedstore.store.part_reader import Part
from embedstore.store.reader import Store


def _as_it_is(state: FileState) -> FileState:
    return state


@dataclass(frozen=True)
class ChangedFiles:
    """Files that are not as they were when they were read; by number of the part and row of the part.

    Parameters
    ----------
    other
        Rows whose file holds something else -> what changed, for people.
    rewritten
        Rows whose file was written again with the same content -> how it is now.
    """

    other: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    rewritten: Mapping[int, Mapping[int, FileState]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.other or self.rewritten)

    @property
    def rows(self) -> int:
        """Rows whose vector is no longer that of the file."""
        return sum(map(len, self.other.values()))


def changed_files(
    store: Store, wanted: Manifest, root: Path, *, kept: Callable[[FileState], FileState] = _as_it_is
) -> ChangedFiles:
    """Compare size and time of every file with those in the receipts; where only the time differs, the content decides.

    A file that is gone is no change: its vector stays what it was made of. Rows that failed are compared as well, so
    that a file that was mended is tried again.

    Parameters
    ----------
    store
        The store.
    wanted
        The data set's records, whose paths count.
    root
        Folder of the paths.
    kept
        What a store keeps of a file (`Collection.kept_state`).
    """
    ids = wanted.table.column("image_id").combine_chunks()
    paths = wanted.table.column("path").combine_chunks()
    folder = str(root.absolute())
    other: dict[int, dict[int, str]] = {}
    rewritten: dict[int, dict[int, FileState]] = {}
    states: dict[str, FileState | None] = {}
    for part in store.parts:
        if not any(receipt.sources for receipt in part.receipts.values()):
            continue
        at = pc.index_in(part.image_id_table().column("image_id").combine_chunks(), value_set=ids)
        path_of_row = paths.take(at).to_pylist()
        if wanted.paths:
            names = part.image_id_table().column("image_id").to_pylist()
            path_of_row = [wanted.paths.get(name) for name in names]
        number = part.plan.number
        for row, before in _files(part):
            path = path_of_row[row]
            if path is None:
                continue
            full = os.path.join(folder, path) if path.isascii() else str(path_from_manifest(root, path))
            if full not in states:
                states[full] = state_of(full)
            now = states[full]
            if now is None or kept(now).is_same_time(before):
                continue
            if now.size == before.size and before.digest:
                states[full] = now = now if now.digest else digested(full, now)
                if now.digest == before.digest:
                    rewritten.setdefault(number, {})[row] = kept(now)
                    continue
            other.setdefault(number, {})[row] = _words(before, now)
    return ChangedFiles(other, rewritten)


@dataclass(frozen=True)
class SourceCheck:
    """What came of digesting every source file.

    Parameters
    ----------
    changed
        Image id -> what changed, for people.
    missing
        Image ids whose file is not there.
    same
        Rows whose file holds what was read.
    unknown
        Rows of which no digest was noted, as a release before this one made them.
    """

    changed: Mapping[str, str]
    missing: tuple[str, ...]
    same: int
    unknown: int


def check_sources(store: Store, paths: Mapping[str, Path]) -> SourceCheck:
    """Digest the file of every row that was tried, and compare it with the digest in the receipt.

    Parameters
    ----------
    store
        The store.
    paths
        Image id -> its file; of those without one nothing is known.
    """
    changed: dict[str, str] = {}
    missing: list[str] = []
    same = unknown = 0
    digest = lru_cache(maxsize=1)(digest_of)  # the frames of a file follow one another
    for part in store.parts:
        ids = part.manifest.column("image_id")
        for receipt in part.receipts.values():
            for row, before in enumerate(receipt.files, start=receipt.start):
                path = str(paths.get(ids[row], ""))
                now = state_of(path)
                if not path:
                    unknown += 1
                elif now is None:
                    missing.append(ids[row])
                elif before is None or not (before.digest or before.size != now.size):
                    unknown += 1
                elif now.size == before.size and digest(path) == before.digest:
                    same += 1
                else:
                    changed[ids[row]] = _words(before, now)
    return SourceCheck(changed, tuple(missing), same, unknown)


def _files(part: Part) -> Iterator[tuple[int, FileState]]:
    """Yield row and file of every row that was tried, does not wait to be tried again, and whose file is known."""
    for receipt in part.receipts.values():
        waiting = {failure.row for failure in receipt.failures if failure.reason is Reason.CHANGED}
        for row, file in enumerate(receipt.files, start=receipt.start):
            if file is not None and row not in waiting:
                yield row, file


def _words(before: FileState, now: FileState) -> str:
    if before == ABSENT:
        return "the file was missing and is there now"
    if before.size != now.size:
        return f"the file had {before.size:,} bytes when it was read, and has {now.size:,}"
    return "the file was written again since it was read"
