"""The table of records that a data set reader makes and a part is planned from.

Fixed columns come first, in this order and with these types; whatever else a data set knows about its
images (anatomy, view, manufacturer, ...) follows as further string or number columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.brief import Brief
from embedstore.errors import DataError, first_few
from embedstore.files import parquet_bytes

# Everything but image_id and path may be empty.
FIXED_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.string(),  # unique in a store; the join key everywhere
    "path": pa.string(),  # relative to the data set's root, with forward slashes; empty where all are hidden
    "frame": pa.int32(),  # frame of a multi-frame file, from 0
    "patient_id": pa.string(),
    "study_id": pa.string(),
    "series_id": pa.string(),
    "split": pa.string(),  # train, valid or test where the data set has an official split
    "modality": pa.string(),  # DICOM modality code where known: CR, DX, CT, MR
}
SPLITS = ("train", "valid", "test")
# Of a manifest of crops, beside its other columns: `embedstore.images.crop.CropBox`, field by field. All or none of a
# row are empty.
CROP_COLUMNS: dict[str, pa.DataType] = {
    "crop_left_px": pa.float64(),
    "crop_top_px": pa.float64(),
    "crop_width_px": pa.float64(),
    "crop_height_px": pa.float64(),
    "crop_axes": pa.string(),
}
_CROP_MARK = "#crop="
CropCells = tuple[float, float, float, float, str]


@dataclass(frozen=True)
class Record:
    """One row: one image, one frame of an image, or one crop of either.

    Parameters
    ----------
    image_id
        Unique in a store.
    path
        Relative to the data set's root, with forward slashes.
    frame
        Frame of a multi-frame file, from 0; 0 for a file with one image.
    modality
        DICOM modality code, or ``""`` where the manifest does not know it.
    series_id
        The series, or ``""``.
    crop
        The part of the image that the row is of: its cells of `CROP_COLUMNS`. None for all of it.
    """

    image_id: str
    path: str
    frame: int = 0
    modality: str = ""
    series_id: str = ""
    crop: CropCells | None = None


@dataclass(frozen=True, repr=False)
class Manifest(Brief):
    """Records in row order, backed by an Arrow table.

    Build one with `manifest_from_columns` or `manifest_from_table`, which check it.

    Parameters
    ----------
    table
        The columns.
    paths
        ``image_id`` -> path, where the column ``path`` is empty because no store may hold it: only in memory.
    """

    table: pa.Table
    paths: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def extra_columns(self) -> list[str]:
        """Names of the columns after the fixed ones, in order."""
        return [name for name in self.table.column_names if name not in FIXED_COLUMNS]

    def column(self, name: str) -> list[Any]:
        """Return one column as a list; an empty cell is None."""
        return list(self.table.column(name).to_pylist())

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Yield the records of rows `start` to `stop` (excluded)."""
        piece = self.table.slice(start, None if stop is None else stop - start)
        columns = [
            piece.column(name).to_pylist() for name in ("image_id", "path", "frame", "modality", "series_id")
        ]
        crops = _crops(piece)
        for (image_id, path, frame, modality, series_id), crop in zip(
            zip(*columns, strict=True), crops, strict=True
        ):
            yield Record(
                image_id,
                path or self.paths.get(image_id, ""),
                frame or 0,
                modality or "",
                series_id or "",
                crop,
            )

    def take(self, rows: Sequence[int]) -> Manifest:
        """Return the manifest of `rows`, in that order."""
        return replace(self, table=self.table.take(pa.array(rows, pa.int64())))

    def first(self, count: int | None) -> Manifest:
        """Return the manifest of the first so many records; all of them for None."""
        return replace(self, table=self.table.slice(0, count))

    def with_hidden_paths(self) -> Manifest:
        """Return the manifest with an empty column ``path`` and the paths beside it: a store gets the column alone."""
        paths = dict(zip(self.column("image_id"), self.column("path"), strict=True))
        place = self.table.column_names.index("path")
        empty = pa.nulls(len(self), FIXED_COLUMNS["path"])
        return Manifest(self.table.set_column(place, "path", empty), paths)

    def without(self, image_ids: pa.Array) -> Manifest:
        """Return the manifest without the records named in `image_ids`, an Arrow array of strings."""
        known = pc.is_in(self.table.column("image_id"), value_set=image_ids)
        return replace(self, table=self.table.filter(pc.invert(known)).combine_chunks())

    def to_parquet(self) -> bytes:
        """Return the table as Parquet; the same table gives the same bytes with the same library."""
        return parquet_bytes(self.table)

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self),
            "columns": self.table.column_names,
        }


def manifest_from_columns(columns: Mapping[str, Sequence[Any]], *, source: str) -> Manifest:
    """Build a checked manifest from named columns.

    Parameters
    ----------
    columns
        ``image_id`` and ``path`` at least; every column of one length.
    source
        The file or folder the records come from, for messages.

    Raises
    ------
    DataError
        If a needed column is missing, a cell of one is empty, an `image_id` occurs twice, a path leaves
        the root, or a split has another name than ``train``, ``valid``, ``test``.

    Examples
    --------
    >>> manifest = es.manifest_from_columns(
    ...     {"image_id": ["a", "b"], "path": ["a.png", "b.png"], "patient_id": ["p1", "p2"]}, source="my table"
    ... )
    >>> len(manifest)
    2
    """
    arrays = {}
    for name, cells in columns.items():
        try:
            arrays[name] = pa.array(cells, FIXED_COLUMNS.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"{source}: column {name!r} must hold {FIXED_COLUMNS.get(name)}: {error}"
            ) from error
    return manifest_from_table(pa.table(arrays), source=source)


def manifest_from_table(table: pa.Table, *, source: str) -> Manifest:
    """Check an Arrow table, bring its fixed columns into order and return the manifest.

    Raises
    ------
    DataError
        As `manifest_from_columns`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> len(es.manifest_from_table(pa.table({"image_id": ["a"], "path": ["a.png"]}), source="my table"))
    1
    """
    for name in ("image_id", "path"):
        if name not in table.column_names:
            raise DataError(f"{source}: a manifest needs the column {name!r}; found {table.column_names}")
    rows = table.num_rows
    fixed = {
        name: table.column(name).cast(kind) if name in table.column_names else pa.nulls(rows, kind)
        for name, kind in FIXED_COLUMNS.items()
    }
    extra = {name: table.column(name) for name in table.column_names if name not in FIXED_COLUMNS}
    manifest = Manifest(pa.table(fixed | extra).combine_chunks())
    _check_cells(manifest.table, source)
    _check_unique(manifest.table, source)
    _check_splits(manifest.table, source)
    return manifest


def crop_id(image_id: str, name: str) -> str:
    """Return the id of a crop of an image.

    Examples
    --------
    >>> crop_id("a/1.dcm", "axial_t2,l4_l5,left")
    'a/1.dcm#crop=axial_t2,l4_l5,left'
    """
    return f"{image_id}{_CROP_MARK}{name}"


def image_of_crop(image_id: str) -> str:
    """Return the id of the image that a crop was cut from; any other id is its own.

    Examples
    --------
    >>> image_of_crop("a/1.dcm#crop=axial_t2,l4_l5,left"), image_of_crop("a/1.dcm")
    ('a/1.dcm', 'a/1.dcm')
    """
    return image_id.partition(_CROP_MARK)[0]


def joined_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several manifests; a cell that one lacks is null, types that do not go together are text."""
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for column in table.schema:
            types.setdefault(column.name, set()).add(column.type)
    apart = {name for name, found in types.items() if len(found) > 1 and not _go_together(found)}
    return pa.concat_tables([_as_text(table, apart) for table in tables], promote_options="permissive")


def _go_together(types: set[pa.DataType]) -> bool:
    try:
        pa.unify_schemas([pa.schema({"column": found}) for found in types], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for name in names.intersection(table.column_names):
        at = table.column_names.index(name)
        table = table.set_column(at, name, table.column(name).cast(pa.string()))
    return table


def count_distinct(cells: pa.ChunkedArray) -> int:
    """Return how many values a column has, null apart; a few times as fast as `pyarrow.compute.count_distinct`."""
    return len(pc.unique(cells).drop_null())


def path_from_manifest(root: Path, path: str) -> Path:
    """Return the absolute path behind a manifest path; undoes `path_to_manifest`."""
    return root.absolute() / path.translate(_TO_SURROGATES)


def path_to_manifest(path: str) -> str:
    """Return a path as text that a table can hold, whatever bytes the file's name has.

    Parameters
    ----------
    path
        Relative to the root; bytes that are not UTF-8 are surrogate-escaped, as Python lists them.

    Returns
    -------
    str
        Valid Unicode: the bytes 0x80 ... 0xFF that are not UTF-8 become the private-use characters U+F780
        ... U+F7FF, and so do the bytes of a name that holds such a character itself.
    """
    escaped = _OWN_PRIVATE.sub(lambda found: found[0].encode().decode("ascii", "surrogateescape"), path)
    return escaped.translate(_FROM_SURROGATES)


_FROM_SURROGATES = {0xDC00 + byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_TO_SURROGATES = {private: surrogate for surrogate, private in _FROM_SURROGATES.items()}
_OWN_PRIVATE = re.compile("[\uf780-\uf7ff]")


def _crops(table: pa.Table) -> list[CropCells | None]:
    """Return the crop of each row; raises DataError where only some of its cells are empty."""
    if not all(name in table.column_names for name in CROP_COLUMNS):
        return [None] * table.num_rows
    crops: list[CropCells | None] = []
    for cells in zip(*(table.column(name).to_pylist() for name in CROP_COLUMNS), strict=True):
        if None in cells and set(cells) != {None}:
            raise DataError(
                f"a manifest's {', '.join(CROP_COLUMNS)} must all be there or empty; found {cells}"
            )
        crops.append(None if None in cells else cells)
    return crops


def _check_cells(table: pa.Table, source: str) -> None:
    for name in ("image_id", "path"):
        column = table.column(name)
        empty = pc.fill_null(pc.equal(column, ""), True)
        if pc.any(empty).as_py():
            row = empty.to_pylist().index(True)
            raise DataError(f"{source}: row {row} has no {name}; every record needs one")
    if table.num_rows == 0:
        return
    path = table.column("path")
    outside = pc.or_(pc.starts_with(path, "/"), pc.match_substring_regex(path, r"(^|/)\.\.(/|$)"))
    if pc.any(outside).as_py():
        row = outside.to_pylist().index(True)
        raise DataError(
            f"{source}: row {row}: path {path[row].as_py()!r} must be relative to the root and stay below it"
        )


def _check_unique(table: pa.Table, source: str) -> None:
    counts = table.column("image_id").value_counts()
    doubled = (
        [entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1]
        if (len(counts) < table.num_rows)
        else []
    )
    if doubled:
        shown = first_few(map(repr, doubled), shown=3)
        raise DataError(f"{source}: image_id must be unique; {len(doubled)} occur more than once: {shown}")


def _check_splits(table: pa.Table, source: str) -> None:
    found = set(table.column("split").unique().to_pylist()) - {None, *SPLITS}
    if found:
        raise DataError(
            f"{source}: split must be one of {', '.join(SPLITS)} or empty; found {first_few(map(repr, sorted(found)))}"
        )
