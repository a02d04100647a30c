"""Columns of Parquet and JSON lines -> text, int64 or float64, whatever type a program gave them."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedstore.errors import DataError
from embedstore.tables.cell_rules import dates_where_midnight
from embedstore.tables.encodings import read_text_file
from embedstore.tables.json_forms import AS_RECORDS, records_of
from embedstore.tables.rows import Cell, as_text

_EXACT = 1 << 53


def read_parquet(
    path: Path, lists: Container[str] = ()
) -> tuple[list[str], list[pa.ChunkedArray], tuple[str, ...]]:
    """Return the names and columns of a Parquet file, and the names of those that are no column of cells.

    Cells of the columns `lists` may be lists of text. Other lists and structures (boxes, headers) are left out.
    """
    table = pq.ParquetFile(path).read()
    nested = tuple(
        field.name for field in table.schema if pa.types.is_nested(field.type) and field.name not in lists
    )
    table = table.drop_columns(list(nested)) if nested else table
    columns = [
        _lists_as_text(table.column(number))
        if name in lists and _is_list_of_text(table.column(number).type)
        else _plain_column(path, name, table.column(number))
        for number, name in enumerate(table.column_names)
    ]
    return table.column_names, columns, nested


def read_json(
    path: Path, lists: Container[str] = ()
) -> tuple[list[str], list[pa.ChunkedArray], list[str], tuple[str, ...], tuple[str, ...]]:
    """Return names, columns, places of rows and words on the text of JSON lines, or of one document.

    And the names of what is no column of cells: lists and objects are left out, but for the columns `lists`, whose
    cells may be lists of text. A document is a list of objects, or what `embedstore.tables.json_forms` knows.

    Raises
    ------
    DataError
        If a line is no object, holds half of a character, or a list or an object where others hold a cell; with the
        line.
    """
    content, encoding = read_text_file(path)
    words = [f"{encoding} text"] if encoding else []
    whole = content.lstrip()[:1] == b"["
    if (formed := None if whole else _formed(path, content, lists)) is not None:
        documents, places, said = formed
        words.append(said)
    else:
        documents, places = _listed(path, content, lists) if whole else _lines(path, content, lists)
    names = list(dict.fromkeys(name for document in documents for name in document))
    nested = tuple(name for name in names if _is_nested(path, name, documents, places))
    names = [name for name in names if name not in nested]
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
    return names, columns, places, tuple(words), nested


def _formed(
    path: Path, content: bytes, lists: Container[str]
) -> tuple[list[dict[str, Any]], list[str], str] | None:
    """Return the records, places and form of a document that is one object, or None where it is a record or several."""
    first = content.split(b"\n", 1)[0]
    try:
        document = _parsed(path, "line 1", first)
        if content[len(first) :].strip():
            return None
    except DataError:
        try:
            document = _parsed(path, "line 1", content)
        except DataError:
            return None
    found = records_of(document, where=str(path))
    if found is None:
        return None
    records, said = found
    places = [f"row {number}" for number in range(1, len(records) + 1)]
    documents = [_object(path, place, record, lists) for place, record in zip(places, records, strict=True)]
    return documents, places, said


def _lines(path: Path, content: bytes, lists: Container[str]) -> tuple[list[dict[str, Any]], list[str]]:
    documents, places = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            documents.append(_object(path, f"line {number}", _parsed(path, f"line {number}", line), lists))
            places.append(f"line {number}")
    return documents, places


def _listed(path: Path, content: bytes, lists: Container[str]) -> tuple[list[dict[str, Any]], list[str]]:
    if path.suffix.lower() != ".json" and content.strip().count(b"\n"):
        return _lines(path, content, lists)
    found = _parsed(path, "line 1", content)
    if path.suffix.lower() != ".json" and not (
        found and all(isinstance(document, dict) for document in found)
    ):
        raise DataError(
            f"{path}: line 1: must be one JSON object; found {content[:80].decode(errors='replace')!r}"
        )
    places = [f"object {number}" for number in range(1, len(found) + 1)]
    documents = [_object(path, place, document, lists) for place, document in zip(places, found, strict=True)]
    return documents, places


def _parsed(path: Path, place: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        text = text.lstrip()[:1]
        advice = f". Separated text ends in .csv: rename it to {path.with_suffix('.csv').name}"
        said = advice if place == "line 1" and (text.isalpha() or text == b'"') else ""
        raise DataError(f"{path}: {place}: must be one JSON object; {error}{said}") from error


def _object(path: Path, place: str, document: Any, lists: Container[str]) -> dict[str, Any]:
    if not isinstance(document, dict):
        named = f". Its cells have no names: {AS_RECORDS}" if isinstance(document, list) else ""
        raise DataError(f"{path}: {place}: must be one JSON object; found {str(document)[:80]!r}{named}")
    for name, cell in document.items():
        if name in lists and isinstance(cell, list) and all(isinstance(entry, str) for entry in cell):
            document[name] = json.dumps(cell, ensure_ascii=False)
        if _is_half(name):
            raise DataError(f"{path}: {place}: the column name {name!r} holds half of a character")
    return document


def _is_nested(path: Path, name: str, documents: Sequence[dict[str, Any]], places: Sequence[str]) -> bool:
    """Return whether all that is said under a name are lists or objects; raises DataError where only some are."""
    rows = [row for row, document in enumerate(documents) if isinstance(document.get(name), list | dict)]
    if rows and any(not isinstance(document.get(name), list | dict | None) for document in documents):
        cell = documents[rows[0]][name]
        raise DataError(
            f"{path}: {places[rows[0]]}: {name!r} must be text or a number; found {repr(cell)[:80]}"
        )
    return bool(rows)


def _is_list_of_text(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(
        is_list and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))
    )


def _lists_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    cells = (
        None
        if cell is None
        else json.dumps([entry for entry in cell if entry is not None], ensure_ascii=False)
        for cell in column.to_pylist()
    )
    return pa.chunked_array([pa.array(cells, pa.string())])


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


def _without_nan(column: Any) -> Any:
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
