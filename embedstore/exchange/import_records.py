"""Joins vectors with the table that knows their images: which are taken, and what stands in their manifest."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.exchange.feature_rows import FeatureRows
from embedstore.manifest import FIXED_COLUMNS, Manifest, manifest_from_columns
from embedstore.tables.cell_rules import BLANKS, CellRules
from embedstore.tables.id_rules import read_ids
from embedstore.tables.remarks import Remark
from embedstore.tables.rows import Rows, as_text
from embedstore.tables.table_file import read_rows

# The column of a table that names what the features are of, where nothing else is said.
_ID_COLUMNS = ("image_id",)
_SLIDE_COLUMNS = ("slide_id", "series_id", "study_id", "image_id")
_ID_COLUMNS_OF_MANIFEST = ("patient_id", "study_id", "series_id")
_SHOWN = 3


@dataclass(frozen=True)
class ImportRecords:
    """Which vectors are imported.

    Parameters
    ----------
    manifest
        Their records, in the order of the vectors.
    positions
        (n,) int64: the row of each record among all vectors.
    unlisted
        Ids (of slides, where files are slides) with vectors that the table does not name; left out.
    absent
        Ids that the table names and no vector belongs to; left out.
    remarks
        What was guessed or normalised while the table was read.
    """

    manifest: Manifest
    positions: npt.NDArray[np.int64]
    unlisted: Sequence[str] = ()
    absent: Sequence[str] = ()
    remarks: Sequence[Remark] = ()


@dataclass(frozen=True, kw_only=True)
class TableChoice:
    """How a table is read.

    Parameters
    ----------
    path
        The table: CSV, Parquet or JSON lines.
    id_column
        Its column that names the images, or the slides; by default the first there is of ``image_id``, or of
        ``slide_id``, ``series_id``, ``study_id`` and ``image_id`` for slides.
    columns
        Manifest column -> the table's own name for it.
    """

    path: Path
    id_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def records_without_table(rows: FeatureRows) -> ImportRecords:
    """Return records that know no more than the files say."""
    columns: dict[str, Sequence[Any]] = {"image_id": rows.ids, **rows.columns}
    if rows.are_bags:
        columns["study_id"] = rows.keys
    return ImportRecords(manifest_from_columns(columns, source=str(rows.root)), np.arange(len(rows)))


def records_of_table(rows: FeatureRows, choice: TableChoice) -> ImportRecords:
    """Return records with the columns of a table.

    Raises
    ------
    DataError
        If the table lacks a column, names one image twice, or names none of the vectors.
    UsageError
        If `choice` maps a column that no manifest has.
    """
    if unknown := sorted(set(choice.columns) - set(FIXED_COLUMNS)):
        raise UsageError(f"a column may be mapped to {', '.join(FIXED_COLUMNS)}; found {unknown[0]!r}")
    table = _read(choice.path)
    for name, own in choice.columns.items():
        if own not in table.table.column_names:
            raise DataError(
                f"{table.path}: {name} is to be the column {own!r}, which the table has not; it has "
                f"{', '.join(table.table.column_names)}{did_you_mean(own, table.table.column_names)}"
            )
    key = _key_column(table, choice, bags=rows.are_bags)
    table = _with_ids(table, {key, *(choice.columns.get(name, name) for name in _ID_COLUMNS_OF_MANIFEST)})
    row_of = _rows_by_key(table, key)
    # The table's ids were composed and trimmed.
    keys = (unicodedata.normalize("NFC", name).strip(BLANKS) for name in rows.keys)
    found = np.array([row_of.get(name, -1) for name in keys], dtype=np.int64)
    positions = np.flatnonzero(found >= 0)
    taken = {rows.keys[at] for at in positions}
    named = set(found[positions].tolist())
    unlisted = list(dict.fromkeys(name for name in rows.keys if name not in taken))
    absent = [name for name, row in row_of.items() if row not in named]
    if not len(positions):
        raise DataError(
            f"{table.path}: none of its {len(row_of):,} values of {key!r} names a vector; they look like "
            f"{_examples(absent)}, the vectors' like {_examples(unlisted)}. `manifest_id_column` names another column"
        )
    columns = _columns(rows, table, choice, key, positions, found[positions])
    return ImportRecords(
        manifest_from_columns(columns, source=str(table.path)), positions, unlisted, absent, table.remarks
    )


def ids_in_order(rows: FeatureRows, choice: TableChoice) -> list[str]:
    """Return the ids of a table's rows, of which there must be one for each vector; raises DataError."""
    table = _read(choice.path)
    key = _key_column(table, choice, bags=False)
    ids = list(_rows_by_key(_with_ids(table, {key}), key))
    if len(ids) != len(rows):
        raise DataError(
            f"{table.path}: `in_order` needs a row for each vector; found {len(ids):,} rows and {len(rows):,} vectors"
        )
    return ids


def changed_columns(held: pa.Table, new: pa.Table) -> tuple[list[str], int]:
    """Compare rows of a store's manifest with new ones of the same images.

    Parameters
    ----------
    held, new
        As many rows, in the same order. The path is not compared: a file of features may be renamed.

    Returns
    -------
    columns
        Those of `new` of which a cell differs.
    images
        How many rows have such a cell.
    """
    names, differ = [], np.zeros(new.num_rows, dtype=bool)
    for name in new.column_names:
        if name == "path":
            continue
        known = held.column(name) if name in held.column_names else pa.nulls(held.num_rows)
        one, other = (_as_texts(column) for column in (known, new.column(name)))
        if (one != other).any():
            names.append(name)
            differ |= one != other
    return names, int(differ.sum())


def _columns(
    rows: FeatureRows,
    table: Rows,
    choice: TableChoice,
    key: str,
    positions: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> dict[str, Sequence[Any]]:
    """Return the manifest's columns: what the table says wins over what the files say, ids aside."""
    columns: dict[str, Sequence[Any]] = {
        name: [cells[at] for at in positions] for name, cells in rows.columns.items()
    }
    fixed = {
        name: choice.columns.get(name, name) for name in FIXED_COLUMNS if name not in ("image_id", "frame")
    }
    own = {"image_id", "frame", key, *fixed, *choice.columns.values()}
    for name, held in fixed.items():
        if held in table.columns:
            columns[name] = [as_text(table.columns[held][at]) for at in found]
    if "path" in columns and None in columns["path"]:
        columns["path"] = [rows.columns["path"][at] for at in positions]
    if rows.are_bags:
        columns.setdefault("study_id", [rows.keys[at] for at in positions])
        columns["series_id"] = [rows.keys[at] for at in positions]
    for name in table.table.column_names:
        if name not in own:
            columns[name] = table.column(name).take(pa.array(found)).combine_chunks()
    return {"image_id": [rows.ids[at] for at in positions], **columns}


def _read(path: Path) -> Rows:
    """Read a table, of a Parquet file only the columns that are no lists: an export has its vectors among them."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return read_rows(path)
    try:
        with pq.ParquetFile(path) as file:
            plain = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            if len(plain) == len(file.schema_arrow):
                return read_rows(path)
            table = file.read(plain)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error
    return Rows(path, table, "row {}".format)


def _with_ids(table: Rows, names: Collection[str]) -> Rows:
    """Return the table with its ids written in one way, `1.0` as `1`."""
    for name in sorted(names):
        if name in table.table.column_names:
            table = read_ids(table, name, CellRules())
    return table


def _key_column(table: Rows, choice: TableChoice, *, bags: bool) -> str:
    wanted = choice.id_column or choice.columns.get("image_id")
    if wanted is not None:
        if wanted not in table.columns:
            raise DataError(
                f"{table.path}: `manifest_id_column` names {wanted!r}, which the table has not; it has "
                f"{', '.join(table.columns)}{did_you_mean(wanted, table.columns)}"
            )
        return wanted
    names = _SLIDE_COLUMNS if bags else _ID_COLUMNS
    known = [name for name in names if name in table.columns]
    if not known:
        raise DataError(
            f"{table.path}: which column names the {'slides' if bags else 'images'}? It has none called "
            f"{' or '.join(names)}; `manifest_id_column` names one of {', '.join(table.columns)}"
        )
    return known[0]


def _rows_by_key(table: Rows, key: str) -> dict[str, int]:
    row_of: dict[str, int] = {}
    for row, cell in enumerate(table.columns[key]):
        name = as_text(cell)
        if name is None:
            raise DataError(f"{table.where(row)}: {key} is empty; every row needs one")
        if name in row_of:
            raise DataError(
                f"{table.where(row)}: {key} {name!r} stands on {table.places[row_of[name]]} already; a row is needed "
                "once for each"
            )
        row_of[name] = row
    return row_of


def _as_texts(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.object_]:
    return np.array(["" if cell is None else as_text(cell) for cell in column.to_pylist()], dtype=object)


def _examples(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN]))
