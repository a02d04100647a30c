"""Rows of a CSV, Parquet or JSON-lines file as columns of text or numbers, each with its place."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedstore.errors import DataError

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Rows:
    """The content of a table file.

    Parameters
    ----------
    path
        The file.
    columns
        Column name -> one cell per row. An empty cell is None. CSV cells are text as written, so that
        a patient ``007`` keeps its zeros.
    places
        For each row where it stands, for messages (``line 12``).
    """

    path: Path
    columns: dict[str, list[Cell]]
    places: Sequence[str]

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int) -> str:
        """Name the file and the place of a row."""
        return f"{self.path}: {self.places[row]}"


def read_rows(path: Path) -> Rows:
    """Read a ``.csv``, ``.parquet`` or ``.jsonl`` file.

    Raises
    ------
    DataError
        If there is no such file, its ending is another, or its content is not what the ending says.
    """
    if path.suffix.lower() not in _FORMATS:
        raise DataError(
            f"{path}: a table must end in {', '.join(_FORMATS)}; found {path.suffix or 'no ending'!r}"
        )
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; name the table's file")
    try:
        rows = _FORMATS[path.suffix.lower()](path)
    except (UnicodeDecodeError, pa.ArrowException, OSError, csv.Error, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix.lower()[1:]}: {error}") from error
    if not len(rows):
        raise DataError(f"{path}: the table has no rows; found columns {list(rows.columns)}")
    return rows


def as_text(cell: Cell) -> str | None:
    """Write a cell as text; a whole number has no decimals, whatever the column's type made of it."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _read_csv(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        _check_header(path, header)
        cells: list[list[str]] = []
        places = []
        start = reader.line_num + 1
        for row in reader:
            if row:
                if len(row) != len(header):
                    raise DataError(
                        f"{path}: line {start}: {len(header)} columns expected ({', '.join(header)}); "
                        f"found {len(row)}. Quote cells that hold commas."
                    )
                cells.append(row)
                places.append(f"line {start}")
            start = reader.line_num + 1
    columns: dict[str, list[Cell]] = {
        name: [row[index] or None for row in cells] for index, name in enumerate(header)
    }
    return Rows(path, columns, places)


def _read_parquet(path: Path) -> Rows:
    table = pq.read_table(path)
    _check_header(path, table.column_names)
    columns = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (
            _is_text(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_null(kind)
        ):
            # Dates, decimals and the like become text; lists and structs have no place in a table of records.
            try:
                table = table.set_column(
                    table.column_names.index(name), name, table.column(name).cast(pa.string())
                )
            except pa.ArrowException as error:
                raise DataError(f"{path}: column {name!r} must hold text or numbers; found {kind}") from error
        columns[name] = [_plain(cell) for cell in table.column(name).to_pylist()]
    return Rows(path, columns, [f"row {row}" for row in range(table.num_rows)])


def _read_jsonl(path: Path) -> Rows:
    documents: list[dict[str, Any]] = []
    places = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                document = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number}: must be one JSON object; {error}") from error
            if not isinstance(document, dict):
                raise DataError(f"{path}: line {number}: must be one JSON object; found {line[:80]!r}")
            for name, cell in document.items():
                if isinstance(cell, list | dict):
                    found = repr(cell)[:80]
                    raise DataError(
                        f"{path}: line {number}: {name!r} must be text or a number; found {found}"
                    )
            documents.append(document)
            places.append(f"line {number}")
    names = list(dict.fromkeys(name for document in documents for name in document))
    columns = {name: [_plain(document.get(name)) for document in documents] for name in names}
    return Rows(path, columns, places)


_FORMATS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(cell: Any) -> Cell:
    """Empty text and NaN count as empty."""
    if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
        return None
    plain: Cell = cell
    return plain


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise DataError(f"{path}: the table is empty; its first line must name the columns")
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled or "" in header:
        raise DataError(f"{path}: column names must differ and not be empty; found {list(header)}")
