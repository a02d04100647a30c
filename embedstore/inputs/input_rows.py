"""Files that a user named -> rows of a manifest: what a store, their data set or their own headers say of them.

An answer from files is that of the store only if an image belongs to the same study, the same MR series and has the
same columns in both. So a file is looked for among the rows of the store first, then in the layout of the run's or
project's data set, and what nobody knows is grouped by its DICOM identifiers, or by its folder where it has none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.datasets.base import DatasetReader, FileReader, columns_of_headers
from embedstore.errors import DataError
from embedstore.inputs.loose_files import rows_of_loose_files
from embedstore.inputs.user_files import UserFile
from embedstore.keys.key_file import Key
from embedstore.manifest import FIXED_COLUMNS, path_to_manifest
from embedstore.queries.image_files import ImageFiles
from embedstore.queries.manifest_columns import own_unit_names
from embedstore.store.part_reader import Part
from embedstore.store.reader import Store
from embedstore.task import unit_key

# What the paths of rows are relative to: inputs may lie anywhere.
ANCHOR = Path("/")


@dataclass(frozen=True, kw_only=True)
class InputSources:
    """Who may know the files.

    Parameters
    ----------
    store
        A store of the run's identity; None without one.
    readers
        Readers of the data sets that the run or the project is about.
    root
        The project's data set, as the first of `readers` reads it; None without one.
    key
        The project's key of ids, and of the stores whose paths are hidden; None without one.
    base
        Folder that the ids of images are relative to, where they are of no data set.
    header_columns
        Columns that mean in every data set of the run what a DICOM header says.
    """

    store: Store | None = None
    readers: Sequence[DatasetReader] = ()
    root: Path | None = None
    key: Key | None = None
    base: Path = field(default_factory=Path.cwd)
    header_columns: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class InputRows:
    """Rows for the images that were given, and for others of their units and series.

    Parameters
    ----------
    table
        Rows of manifests; ``path`` is relative to `ANCHOR`.
    given
        (n_rows,) bool: which images were given.
    store_rows
        (n_rows,) int64: row of the store, -1 where the store does not know the file by its path.
    units
        (n_rows,) str: the unit that each belongs to.
    columns
        Columns that are known of every image that was given.
    """

    table: pa.Table
    given: npt.NDArray[np.bool_]
    store_rows: npt.NDArray[np.int64]
    units: npt.NDArray[np.str_]
    columns: frozenset[str]


def rows_of_files(files: Sequence[UserFile], sources: InputSources, unit: str) -> InputRows:
    """Find what is known of files.

    Parameters
    ----------
    files
        The files.
    sources
        Who may know them.
    unit
        As `embedstore.task.Task.unit`.

    Raises
    ------
    DataError
        If nothing among them is an image, or a table of their data set is wrong.
    """
    pieces: list[_Piece] = []
    left = {file.path: file for file in files}
    for piece in _known_pieces(left, sources, unit):
        for path in piece.found:
            left.pop(path, None)
        pieces.append(piece)
    if left:
        loose = rows_of_loose_files(
            list(left.values()),
            columns=sources.header_columns,
            key=None if sources.key is None else sources.key.secret,
            bases=_bases(sources),
        )
        store_rows = np.full(len(loose.given), -1, np.int64)
        pieces.append(_Piece(loose.table, loose.given, store_rows))
    pieces = [piece for piece in pieces if piece.given.any()]
    if not pieces:
        raise DataError("no image found; give images, folders with PNG, JPEG or DICOM, or a store")
    table = pa.concat_tables([piece.table for piece in pieces], promote_options="permissive")
    return InputRows(
        table=table,
        given=np.concatenate([piece.given for piece in pieces]),
        store_rows=np.concatenate([piece.store_rows for piece in pieces]),
        units=_names(table, unit),
        columns=frozenset.intersection(*(frozenset(piece.table.column_names) for piece in pieces)),
    )


@dataclass(frozen=True)
class _Piece:
    """Rows from one source; `found` are the absolute paths of the files that it knows."""

    table: pa.Table
    given: npt.NDArray[np.bool_]
    store_rows: npt.NDArray[np.int64]
    found: frozenset[str] = frozenset()


def _known_pieces(left: Mapping[str, UserFile], sources: InputSources, unit: str) -> Iterable[_Piece]:
    """Yield what the store and the readers know; `left` shrinks while they are asked."""
    if sources.store is not None:
        yield from _store_pieces(sources.store, left, sources, unit)
    for place, reader in enumerate(sources.readers):
        if isinstance(reader, FileReader):
            for root, paths in _by_root(reader, left).items():
                yield _piece(reader.read_files(root, sorted(paths.values())).table, root, paths)
        elif place == 0 and sources.root is not None and not columns_of_headers(reader):
            folder = sources.root if sources.root.is_dir() else sources.root.parent
            if _below(left, folder):
                collection = reader.read(sources.root)
                root = Path(os.path.realpath(collection.root))
                yield _piece(collection.manifest.table, root, _below(left, root))


def _by_root(reader: FileReader, left: Mapping[str, UserFile]) -> dict[Path, dict[str, str]]:
    """Return the roots of a reader's layout -> absolute path -> manifest path of the files below."""
    found: dict[Path, dict[str, str]] = {}
    for path in left:
        root = reader.root_of(Path(path))
        if root is not None:
            found.setdefault(root, {})[path] = path_to_manifest(os.path.relpath(path, root))
    return found


def _below(left: Mapping[str, UserFile], root: Path) -> dict[str, str]:
    """Return absolute path -> manifest path of the files below a folder."""
    top = os.path.join(os.path.realpath(root), "")
    return {path: path_to_manifest(path[len(top) :]) for path in left if path.startswith(top)}


def _piece(table: pa.Table, root: Path, paths: Mapping[str, str]) -> _Piece:
    """Return the rows of a data set with those that were given marked, and its other ones."""
    by_name = {name: path for path, name in paths.items()}
    cells = table.column("path").to_pylist()
    given = np.array([cell in by_name for cell in cells], np.bool_)
    found = frozenset(by_name[cell] for cell in cells if cell in by_name)
    return _Piece(_anchored(table, root), given, np.full(len(cells), -1, np.int64), found)


def _store_pieces(
    store: Store, left: Mapping[str, UserFile], sources: InputSources, unit: str
) -> Iterable[_Piece]:
    """Yield, part by part, the rows of the files that a store was made of, and the others of their units and series."""
    for offset, part in store.offsets():
        if part.plan.hides_paths:
            table, folder = _located(store, part, sources.key)
        else:
            table, folder = part.manifest.table, _folder_of(Path(part.plan.root), store.path, sources.root)
        paths = _below(left, folder) if folder is not None else {}
        if not paths:
            continue
        given = np.asarray(
            pc.is_in(table.column("path"), value_set=pa.array(list(paths.values()), pa.string()))
        )
        if not given.any():
            continue
        kept = np.flatnonzero(given | _related(table, given, unit))
        taken = table.take(pa.array(kept))
        piece = _piece(taken, Path(os.path.realpath(str(folder))), paths)
        yield _Piece(piece.table, piece.given, offset + kept, piece.found)


def _located(store: Store, part: Part, key: Key | None) -> tuple[pa.Table, Path | None]:
    """Return the rows of a part whose paths are hidden with those that the owner's map knows, and their folder."""
    table = part.manifest.table
    places = {name: (root, path) for name, root, path in ImageFiles(key).of_part(store, part)}
    if not places:
        return table, None
    folder = Counter(root for root, _ in places.values()).most_common(1)[0][0]
    known = [places.get(name, (None, None)) for name in table.column("image_id").to_pylist()]
    paths = pa.array([path if root == folder else None for root, path in known], pa.string())
    return table.set_column(table.column_names.index("path"), "path", paths), folder


def _folder_of(planned: Path, store: Path, root: Path | None) -> Path | None:
    """Return where the files of a part lie: where they lay, or where the project's data set of that name lies now.

    A root that was typed relative to a folder is looked for from that of the store and from the current one.
    """
    for folder in (store.absolute().parent / planned, planned):
        if folder.is_dir():
            return folder
    for folder in () if root is None else (root, root / planned.name, root.parent):
        if folder.is_dir() and folder.resolve().name == planned.name:
            return folder
    return None


def _related(table: pa.Table, given: npt.NDArray[np.bool_], unit: str) -> npt.NDArray[np.bool_]:
    """Return (n_rows,) bool: which rows are of a unit or a series of those that were given."""
    related = np.zeros(len(given), np.bool_)
    series = table.column("series_id")
    for column in (_known(own_unit_names(table, unit)) if _has(table, unit) else None, series):
        if column is not None:
            wanted = column.filter(pa.array(given)).drop_null().unique()
            related |= np.asarray(pc.is_in(column, value_set=wanted).fill_null(False))
    return related


def _known(names: npt.NDArray[np.str_]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(names.tolist(), pa.string())])


def _has(table: pa.Table, unit: str) -> bool:
    return set(unit_key(unit)) <= set(table.column_names)


def _names(table: pa.Table, unit: str) -> npt.NDArray[np.str_]:
    """Return the unit of each row; where a column of its key is not known, each image is one."""
    return own_unit_names(table, unit if _has(table, unit) else "image")


def _anchored(table: pa.Table, root: Path) -> pa.Table:
    """Return the rows with paths relative to `ANCHOR`."""
    prefix = path_to_manifest(os.path.join(root, "")[1:])
    paths = pa.array([prefix + path for path in table.column("path").to_pylist()], FIXED_COLUMNS["path"])
    return table.set_column(table.column_names.index("path"), "path", paths)


def _bases(sources: InputSources) -> list[Path]:
    """Return the folders that ids of images may be relative to, the most telling first."""
    root = sources.root
    of_data = [] if root is None else [root if root.is_dir() else root.parent]
    return [Path(os.path.realpath(folder)) for folder in (*of_data, sources.base)]
