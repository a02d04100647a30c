"""Columns of Parquet and JSON lines -> text, int64 or float64, whatever type a program gave them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedstore.errors import DataError
from embedstore.tables.encodings import read_text_file
from embedstore.tables.rows import Cell, as_text

_EXACT = 1 << 53
_MIDNIGHT = r"[ T]00:00:00(\.0+)?Z?$"


def read_parquet(path: Path) -> tuple[list[str], list[pa.ChunkedArray]]:
    """Return the names and columns of a Parquet file."""
    table = pq.ParquetFile(path).read()
    columns = [
        _plain_column(path, name, table.column(name_index))
        for name_index, name in enumerate(table.column_names)
    ]
    return table.column_names, columns


def read_json(path: Path) -> tuple[list[str], list[pa.ChunkedArray], list[str], str]:
    """Return names, columns, the place of each row and the encoding of JSON lines, or of one list of objects.

    Raises
    ------
    DataError
        If a line is no object, or holds a list, an object or half of a character; with the line.
    """
    content, encoding = read_text_file(path)
    documents, places = _listed(path, content) if content.lstrip()[:1] == b"[" else _lines(path, content)
    names = list(dict.fromkeys(name for document in documents for name in document))
    columns = []
    for name in names:
        cells = [document.get(name) for document in documents]
        try:
            columns.append(pa.chunked_array([_array(cells)]))
        except UnicodeEncodeError as error:
            row = next(row for row, cell in enumerate(cells) if _is_half(cell))
            raise DataError(
                f"{path}: {places[row]}: column {name!r} holds half of a character, {cells[row]!r}; write the whole one"
            ) from error
    return names, columns, places, encoding


def _lines(path: Path, content: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    documents, places = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            documents.append(_object(path, f"line {number}", _parsed(path, f"line {number}", line)))
            places.append(f"line {number}")
    return documents, places


def _listed(path: Path, content: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    if path.suffix.lower() != ".json" and content.strip().count(b"\n"):
        return _lines(path, content)
    found = _parsed(path, "line 1", content)
    if path.suffix.lower() != ".json" and not (
        found and all(isinstance(document, dict) for document in found)
    ):
        raise DataError(
            f"{path}: line 1: must be one JSON object; found {content[:80].decode(errors='replace')!r}"
        )
    places = [f"object {number}" for number in range(1, len(found) + 1)]
    return [_object(path, place, document) for place, document in zip(places, found, strict=True)], places


def _parsed(path: Path, place: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {place}: must be one JSON object; {error}") from error


def _object(path: Path, place: str, document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise DataError(f"{path}: {place}: must be one JSON object; found {str(document)[:80]!r}")
    for name, cell in document.items():
        if isinstance(cell, list | dict):
            raise DataError(f"{path}: {place}: {name!r} must be text or a number; found {repr(cell)[:80]}")
        if _is_half(name):
            raise DataError(f"{path}: {place}: the column name {name!r} holds half of a character")
    return document


def _is_half(cell: object) -> bool:
    return isinstance(cell, str) and any("\ud800" <= character <= "\udfff" for character in cell)


def _array(cells: Sequence[Cell]) -> pa.Array:
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {int} and all(cell is None or -(1 << 63) <= int(cell) < 1 << 63 for cell in cells):
        return pa.array(cells, pa.int64())
    if (
        kinds
        and kinds <= {int, float}
        and all(not isinstance(cell, int) or abs(cell) <= _EXACT for cell in cells)
    ):
        return _without_nan(pa.array([None if cell is None else float(cell) for cell in cells], pa.float64()))
    return pa.array([as_text(cell) for cell in cells], pa.string())


def _plain_column(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        column.validate(full=True)
        plain = _plain(column)
        plain.validate(full=True)
    except pa.ArrowException as error:
        if "UTF8" in str(error):
            raise DataError(f"{path}: column {name!r} holds text that is not UTF-8: {error}") from error
        raise DataError(f"{path}: column {name!r} must hold text or numbers; found {column.type}") from error
    return plain


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of one of the three kinds; raises ArrowException where there is no way to one."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_integer(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column.cast(pa.string())
    if pa.types.is_float16(kind):
        return _plain(column.cast(pa.float32()))
    if pa.types.is_float32(kind):
        # By way of its shortest text, which is what the same number is in a text file.
        return _without_nan(column.cast(pa.string()).cast(pa.float64()))
    if pa.types.is_floating(kind):
        return _without_nan(column)
    if pa.types.is_timestamp(kind):
        return dates_where_midnight(column.cast(pa.string()))
    return column.cast(pa.string())


def dates_where_midnight(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ISO times as dates where all are at midnight, and without zeros at the end of their fractions."""
    if pc.all(pc.match_substring_regex(cells, _MIDNIGHT)).as_py() is not False:
        return pc.replace_substring_regex(cells, _MIDNIGHT, "")
    return pc.replace_substring_regex(cells, r"\.0+(Z?)$|(\.[0-9]*[1-9])0+(Z?)$", r"\1\2\3")


def _without_nan(column: Any) -> Any:
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
