"""The lists of a store, in a folder beside it: opened if they are of these very vectors, else brought up to date.

```
mura.store.index/
  lists.json          what the lists are of (identity, checksums of all chunks), and what they find
  lists-1f2e....faiss the inverted file, named by the digest of what it is of
  lists-1f2e....crc   a CRC-32C of each vector, little-endian uint32, 0 where there is none
```

The folder is a cache: who deletes it loses some minutes. It is read beside the store only, where it belongs to the same
user as the store or to whoever reads it, and is no link; its checksum must be the one that was written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from embedstore.files import (
    TEMPORARY_SUFFIX,
    canonical_json,
    content_sha256,
    sealed,
    sha256_bytes,
    write_durable,
)
from embedstore.indexing.stored_rows import ChunkState, chunk_states, mapped_vectors, states_from_json
from embedstore.similarity.list_search import (
    ListSearch,
    add_rows,
    build_lists,
    open_lists,
    probe_counts,
    remove_rows,
    row_checksums,
    write_lists,
)
from embedstore.similarity.mapped_rows import MappedRows
from embedstore.similarity.scan import Rows
from embedstore.store.reader import Store

# From so many rows on, lists are searched instead of all vectors.
LISTS_FROM = 1_000_000
RECALL = 0.99
_FORMAT = 1
_SIDECAR = "lists.json"
_QUERIES, _K = 48, 10
# Of more new rows than this share the centres are fitted anew.
_GROWN = 0.3
_AT_ONCE = 16_384
_READ_BYTES = 1 << 24

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ListFacts:
    """What the lists of a store are.

    Parameters
    ----------
    rows, lists, probes
        Rows in them, lists, and lists that are looked at for a query.
    recall
        Share of the ten nearest that were found, of some of the store's own rows; exact search is the oracle.
    wanted
        The recall that was asked for.
    """

    rows: int
    lists: int
    probes: int
    recall: float
    wanted: float

    def __str__(self) -> str:
        return (
            f"{self.rows:,} vectors in {self.lists:,} lists, {self.probes:,} of them looked at: recall@{_K} "
            f"{self.recall:.3f} (wanted {self.wanted:g}), measured on {min(_QUERIES, self.rows)} rows against exact "
            "search"
        )


@dataclass(frozen=True, eq=False)
class StoredLists:
    """The lists of a store, ready to be searched by its rows."""

    index: Any
    vectors: MappedRows
    rows: Rows
    facts: ListFacts
    checksums: npt.NDArray[np.uint32]

    def search(self, groups: Rows) -> ListSearch:
        """Return what searches, given the group of each row of the store."""
        return ListSearch(
            self.index,
            self.vectors,
            groups,
            probes=self.facts.probes,
            present=self.rows,
            checksums=self.checksums,
        )


def index_folder(store: Store) -> Path:
    """Return where the lists of a store lie: beside it."""
    place = store.path.absolute()
    return place.with_name(f"{place.name}.index")


def stored_lists(store: Store, *, recall: float = RECALL, say: Say | None = None) -> StoredLists:
    """Open the lists of a store; make them, or bring them up to date, where they are not of its vectors.

    Parameters
    ----------
    store
        The store, with vectors of two rows or more.
    recall
        The share of the ten nearest that must be found.
    say
        Takes what a person should know: what is made, and how it finds.
    """
    tell = say or (lambda _line: None)
    states, vectors = chunk_states(store), mapped_vectors(store)
    folder = index_folder(store)
    known = _read(folder, store)
    if known is not None and known.states == states and known.facts.wanted >= recall:
        return StoredLists(open_lists(known.file), vectors, known.rows, known.facts, known.checksums)
    rows = np.concatenate([np.zeros(0, np.int64), *(state.rows() for state in states.values())])
    checksums, zero = _looked_through(vectors, rows)
    rows = np.setdiff1d(rows, zero)
    index = None if known is None else _updated(known, states, vectors, rows, tell)
    if index is None:
        tell(f"indexing {len(rows):,} vectors, once; they are kept in {folder.name}")
        index = build_lists(vectors, rows)
    facts = _measured(index, vectors, rows, recall)
    tell(f"index: {facts}")
    _write(folder, store, StoredLists(index, vectors, rows, facts, checksums), states, tell)
    return StoredLists(index, vectors, rows, facts, checksums)


@dataclass(frozen=True)
class _Known:
    """What lies beside a store."""

    file: Path
    states: Mapping[str, ChunkState]
    rows: Rows
    facts: ListFacts
    checksums: npt.NDArray[np.uint32]


def _read(folder: Path, store: Store) -> _Known | None:
    """Return the lists beside a store; None where there are none of its identity, or they cannot be trusted."""
    sidecar = folder / _SIDECAR
    owners = {os.geteuid(), store.path.stat().st_uid} if hasattr(os, "geteuid") else None
    try:
        for place in (folder, sidecar):
            if place.is_symlink() or (owners is not None and place.stat().st_uid not in owners):
                return None
        document = json.loads(sidecar.read_text(encoding="utf-8"))
        if document["sha256"] != content_sha256(document) or document["format"] != _FORMAT:
            return None
        if document["identity_sha256"] != store.identity.sha256:
            return None
        states = states_from_json(document["chunks"])
        file = folder / _file_name(store, states)
        for place, wanted in ((file, "file_crc32c"), (file.with_suffix(".crc"), "checksums_crc32c")):
            if place.is_symlink() or _crc32c(place) != document[wanted]:
                return None
        held = np.concatenate([np.zeros(0, np.int64), *(state.rows() for state in states.values())])
        rows = np.setdiff1d(held, np.array(document["zero_rows"], np.int64))
        checksums = np.fromfile(file.with_suffix(".crc"), "<u4").astype(np.uint32)
        return _Known(file, states, rows, ListFacts(**document["facts"]), checksums)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _updated(
    known: _Known, states: Mapping[str, ChunkState], vectors: MappedRows, rows: Rows, tell: Say
) -> Any | None:
    """Return the known lists without what is gone or changed, and with what is new; None where that is too much."""
    same = [name for name, state in states.items() if known.states.get(name) == state]
    kept = np.concatenate([np.zeros(0, np.int64), *(states[name].rows() for name in same)])
    gone, new = np.setdiff1d(known.rows, kept), np.setdiff1d(rows, kept)
    if len(gone) + len(new) > _GROWN * len(rows):
        return None
    if len(gone) + len(new):
        tell(f"index: {len(new):,} vectors are put in, {len(gone):,} taken out")
    index = open_lists(known.file, to_change=True)
    if len(gone):
        remove_rows(index, gone)
    add_rows(index, vectors, new)
    return index


def _measured(index: Any, vectors: MappedRows, rows: Rows, wanted: float) -> ListFacts:
    """Look at as few lists as find what is wanted, of some of the rows themselves."""
    some = np.sort(np.random.default_rng(0).permutation(rows)[:_QUERIES])
    queries = vectors[some].astype(np.float32)
    k = min(_K, len(rows) - 1)
    expected, _ = ListSearch(index, vectors, present=rows).exact.search(queries, k, among=rows, without=some)
    found, probes = 0.0, 1
    for probes in probe_counts(index.nlist):
        search = ListSearch(index, vectors, probes=probes, present=rows)
        nearest, _ = search.proposed_and_refined(queries, k, without=some)
        found = float(
            np.mean([len({*a} & {*b}) / k for a, b in zip(nearest.tolist(), expected.tolist(), strict=True)])
        )
        if found >= wanted:
            break
    return ListFacts(rows=len(rows), lists=index.nlist, probes=probes, recall=found, wanted=wanted)


def _write(
    folder: Path,
    store: Store,
    lists: StoredLists,
    states: Mapping[str, ChunkState],
    tell: Say,
) -> None:
    """Keep lists beside the store; who may not write there searches them all the same."""
    held = np.concatenate([np.zeros(0, np.int64), *(state.rows() for state in states.values())])
    name = _file_name(store, states)
    try:
        folder.mkdir(exist_ok=True)
        # By FAISS itself, so that whoever may read the store may read this.
        temporary = folder / f"{name}.{os.getpid()}{TEMPORARY_SUFFIX}"
        write_lists(lists.index, temporary)
        temporary.replace(folder / name)
        sums = (folder / name).with_suffix(".crc")
        write_durable(sums, lists.checksums.astype("<u4").tobytes(), label="index")
        document = {
            "format": _FORMAT,
            "identity_sha256": store.identity.sha256,
            "chunks": {chunk: state.to_json() for chunk, state in states.items()},
            "zero_rows": np.setdiff1d(held, lists.rows).tolist(),
            "facts": vars(lists.facts),
            "file_crc32c": _crc32c(folder / name),
            "checksums_crc32c": _crc32c(sums),
        }
        write_durable(folder / _SIDECAR, json.dumps(sealed(document)).encode(), label="index")
        for old in folder.glob("lists-*"):
            if old.stem != sums.stem:
                old.unlink()
    except OSError as error:
        tell(f"the index cannot be kept in {folder} ({error.strerror}); the next search makes it again")


def _file_name(store: Store, states: Mapping[str, ChunkState]) -> str:
    what = {
        "identity": store.identity.sha256,
        "chunks": {name: state.to_json() for name, state in states.items()},
    }
    return f"lists-{sha256_bytes(canonical_json(what))[:16]}.faiss"


def _crc32c(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            checksum = int(google_crc32c.extend(checksum, block))
    return checksum


def _looked_through(vectors: MappedRows, rows: Rows) -> tuple[npt.NDArray[np.uint32], Rows]:
    """Return the checksum of each row, by its number, and which rows are zero, and so are similar to nothing."""
    checksums, zero = np.zeros(len(vectors), np.uint32), [np.zeros(0, np.int64)]
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        values = vectors[some]
        checksums[some] = row_checksums(values)
        zero.append(some[~values.any(axis=1)])
    return checksums, np.concatenate(zero)
