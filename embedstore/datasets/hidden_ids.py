"""Ids that say nothing: pseudonyms in place of a data set's own ids, and its paths kept apart for the owner."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.errors import UsageError
from embedstore.files import sha256_file
from embedstore.headers.dicom_headers import ScannedFile
from embedstore.keys.key_file import Key, open_key
from embedstore.keys.keyed_ids import CLINICAL_IDS
from embedstore.keys.owner_map import map_rows
from embedstore.manifest import FIXED_COLUMNS, Manifest, path_to_manifest
from embedstore.task import Task, id_columns

# Columns of a manifest that hold pseudonyms -> what each names.
_LEVELS = {column: level for level, column in CLINICAL_IDS.values()}
_COPY_DIGITS = 8
_EXAMPLE = re.compile(r",? such as [^;]*", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True)
class KnownFiles:
    """Image files with the id of each, and those that are whole copies of another.

    Parameters
    ----------
    images
        (file, image id) by path.
    copies
        Files that hold the same bytes as one of `images`.
    same_uid
        Files that have the SOP instance UID of another, and other bytes.
    """

    images: Sequence[tuple[ScannedFile, str]]
    copies: Sequence[ScannedFile]
    same_uid: int


def key_of_reader(path: Path | None, *, reader: str) -> Key:
    """Return the key of a reader that cannot do without.

    Raises
    ------
    UsageError
        If none is named.
    DataError
        As `embedstore.keys.key_file.open_key`.
    """
    if path is None:
        raise UsageError(
            f"{reader} needs a key file (`key_file`): patient, study and image ids are replaced by digests made "
            "with it. A file that is not there is made, with a random key, when something is extracted; keep it "
            "outside the store."
        )
    return open_key(path)


def files_by_uid(root: Path, images: Sequence[ScannedFile], key: Key) -> KnownFiles:
    """Give each image file the pseudonym of its SOP instance.

    The file whose path comes first keeps the plain pseudonym. Another one with the same UID is left out if it holds
    the same bytes; with other bytes it is an image of its own, whose id ends in a digest of them. A file without a UID
    is named by its path.
    """
    named: dict[str, dict[str, str]] = {}
    found: list[tuple[ScannedFile, str]] = []
    copies: list[ScannedFile] = []
    uids = [entry.header.image_key if entry.header else None for entry in images]
    files_of = Counter(uids)
    same_uid = 0
    for entry, uid in zip(images, uids, strict=True):
        if uid is None:
            found.append((entry, key.id_of("path", path_to_manifest(entry.path))))
        elif files_of[uid] == 1:
            found.append((entry, uid))
        else:
            digest, own = _digest(root / entry.path), named.setdefault(uid, {})
            if digest in own:
                copies.append(entry)
                continue
            own[digest] = uid if not own else f"{uid}-{key.id_of('copy', digest)[:_COPY_DIGITS]}"
            same_uid += len(own) > 1
            found.append((entry, own[digest]))
    return KnownFiles(found, copies, same_uid)


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError:  # gone since it was scanned, or not to be read: the extraction says so by its name
        return str(path)


def hide_paths(
    collection: Collection,
    key: Key,
    *,
    clinical: Mapping[str, Sequence[Any]],
    left_out: Mapping[str, str],
) -> Collection:
    """Return a collection whose manifest has pseudonyms already, without its paths; rows in an order that says nothing.

    Parameters
    ----------
    collection
        With the paths in the manifest.
    key
        The key behind its ids.
    clinical
        DICOM attribute -> what each record's id stands for, for the owner's map.
    left_out
        Path -> why the file gave no record, for the owner's map.
    """
    manifest = collection.manifest
    rows = owner_rows(collection.root, manifest, clinical, left_out)
    # Folders are often named after patients, so the order of paths is one of names. That of digests is none, and
    # slices of one series stay together.
    order = ["patient_id", "study_id", "series_id"]
    keys = list(zip(*([cell or "" for cell in manifest.column(name)] for name in order), strict=True))
    sorted_rows = sorted(range(len(keys)), key=lambda row: keys[row])
    hidden = manifest.take(sorted_rows).with_hidden_paths()
    return replace(collection, manifest=hidden, key=key, owner_rows=rows)


def owner_rows(
    root: Path, manifest: Manifest, clinical: Mapping[str, Sequence[Any]], left_out: Mapping[str, str]
) -> pa.Table:
    """Return what the owner's map says of a folder: its records, and the files that gave none."""
    names = manifest.table.column_names
    pseudonyms = {column: manifest.column(column) for column in _LEVELS if column in names}
    images = map_rows(root, {"path": manifest.column("path"), **pseudonyms, **clinical})
    without = map_rows(
        root, {"path": [path_to_manifest(path) for path in left_out], "left_out": list(left_out.values())}
    )
    return pa.concat_tables([images, without])


def with_pseudonyms(collection: Collection, key: Key, *, keep: Sequence[str]) -> Collection:
    """Replace the ids of a collection by pseudonyms, in its manifest and its tasks, and hide its paths.

    Parameters
    ----------
    collection
        With the data set's own ids and paths.
    key
        The key.
    keep
        Columns beside those of every manifest that stay; nobody but their owner knows whether the others say who a
        patient is.

    Raises
    ------
    UsageError
        If the data set has no such column.
    """
    manifest = collection.manifest
    for name in keep:
        if name not in manifest.extra_columns:
            raise UsageError(
                f"`keep`: the data set has no further column {name!r}; it has "
                f"{', '.join(manifest.extra_columns) or 'none'}"
            )
    kept = [name for name in manifest.table.column_names if name in FIXED_COLUMNS or name in keep]
    own = {column: manifest.column(column) for column in _LEVELS if column in manifest.table.column_names}
    keyed = {column: _pseudonyms(key, column, cells) for column, cells in own.items()}
    table = manifest.table.select(kept)
    for column, cells in keyed.items():
        if column in kept:
            table = table.set_column(kept.index(column), column, pa.array(cells, pa.string()))
    clinical = {name: own[column] for name, (_, column) in CLINICAL_IDS.items() if column in own}
    hidden = hide_paths(replace(collection, manifest=Manifest(table)), key, clinical=clinical, left_out={})
    told = {name: _without_names(fact) for name, fact in collection.summary.items()}
    left = [name for name in manifest.extra_columns if name not in keep]
    if left:
        told["columns left out"] = f"{', '.join(left)}: paths are hidden (`keep` takes one)"
    tasks = tuple(_keyed_task(task, key, keep=kept) for task in collection.tasks)
    return replace(hidden, tasks=tasks, summary=told)


def _pseudonyms(key: Key, column: str, cells: Sequence[str | None]) -> list[str | None]:
    """Return pseudonyms; the frame behind an image's id stays readable, as in every store."""
    known: dict[str, str] = {}
    for cell in cells:
        if cell is None or cell in known:
            continue
        base, mark, frame = cell.rpartition("#") if column == "image_id" else ("", "", "")
        if mark and base and re.fullmatch(r"[1-9]\d{0,8}", frame):
            known[cell] = f"{key.id_of(_LEVELS[column], base)}#{frame}"
        else:
            known[cell] = key.id_of(_LEVELS[column], cell)
    return [None if cell is None else known[cell] for cell in cells]


def _keyed_task(task: Task, key: Key, *, keep: Sequence[str]) -> Task:
    """Return a task whose units have the pseudonyms of the manifest, split by the columns that stayed."""
    labels = task.labels
    for name, column in zip(id_columns(task.unit), task.unit_key, strict=True):
        if column in _LEVELS:
            cells = pa.array(_pseudonyms(key, column, labels.column(name).to_pylist()), pa.string())
            labels = labels.set_column(labels.column_names.index(name), name, cells)
    labels = labels.sort_by([(name, "ascending") for name in id_columns(task.unit)])
    return replace(task, labels=labels, subgroups=tuple(name for name in task.subgroups if name in keep))


def _without_names(fact: str | int) -> str | int:
    """Return a fact of a summary without examples and quoted cells, which name files and ids."""
    if not isinstance(fact, str):
        return fact
    return _QUOTED.sub("...", _EXAMPLE.sub("", fact))
