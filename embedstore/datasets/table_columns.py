"""Columns made from others by a template, or joined from other tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.tables.cell_rules import CellRules, text_of
from embedstore.tables.remarks import Remark
from embedstore.tables.rows import Rows
from embedstore.tables.table_file import read_rows

_FIELD = re.compile(r"\{([^{}]+)\}")
# {Path[-2]}: a part of a path; {subject_id:.2}: the first characters.
_PART = re.compile(r"(?P<column>.+?)(?:\[(?P<part>-?\d+)\])?(?::\.(?P<length>\d+))?")
_APART = "\0"
Texts = list[str | None]


def with_templates(rows: Rows, names: Iterable[str]) -> Rows:
    """Return the rows with a column for each name that is none and says how to make one.

    Parameters
    ----------
    rows
        The table.
    names
        Names of columns, or templates: text with ``{COLUMN}`` for a cell, ``{COLUMN[-2]}`` for a part of a path
        (counted from 0, or from the end), ``{COLUMN:.2}`` for its first characters. The new column has the template
        as its name; its cells are empty where one of the others is.

    Raises
    ------
    DataError
        If the table lacks a column, or a path has too few parts; with the row.

    Examples
    --------
    >>> table = pa.table({"file": ["train/p1/s2/a.png"]})
    >>> rows = with_templates(Rows(Path("t.csv"), table, "row {}".format), ["{file[-3]}-{file[-2]}"])
    >>> rows.columns["{file[-3]}-{file[-2]}"]
    ['p1-s2']
    """
    for name in names:
        if name not in rows.table.column_names and _FIELD.search(name):
            rows = rows.with_column(name, pa.chunked_array([pa.array(_filled(rows, name), pa.string())]))
    return rows


def join_tables(rows: Rows, others: Sequence[Path], rules: CellRules | None = None) -> Rows:
    """Return a table with the columns of others beside its own, matched by the columns that both have.

    Parameters
    ----------
    rows
        The table; its rows stay as they are.
    others
        Tables with one row for each combination of the shared columns; beside `rows` or by their full path.
    rules
        What the user decides about cells.

    Returns
    -------
    Rows
        With further columns; a cell is empty where the other table has no such row. It is said by which columns, and
        how many rows matched.

    Raises
    ------
    DataError
        If nothing is shared or matches, or a table has two rows for one combination.
    """
    for path in others:
        other = read_rows(_found(path, rows.path.parent), rules)
        shared = [name for name in rows.table.column_names if name in other.table.column_names]
        if not shared:
            raise DataError(
                f"{other.path}: `join` needs a column that {rows.path.name} has too "
                f"({', '.join(rows.table.column_names)}); found {', '.join(other.table.column_names)}"
            )
        matched = _matched(rows, other, shared)
        taken = pa.array(matched, pa.int64())
        for name in other.table.column_names:
            if name not in shared:
                rows = rows.with_column(name, other.column(name).take(taken))
        count = len(matched) - taken.null_count
        words = f"by {', '.join(shared)}: {count:,} of {len(rows):,} rows have a match"
        rows = rows.saying(Remark(f"joined {other.path.name}", words), *other.remarks)
    return rows


def _matched(rows: Rows, other: Rows, shared: Sequence[str]) -> list[int | None]:
    """Return for each row the number of the other table's, or None."""
    keys, wanted = _keys(other, shared), _keys(rows, shared)
    place: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key in place:
            raise DataError(
                f"{other.where(row)}: {_said(key, shared)} stands on {other.place_of(place[key])} already; a table "
                "that is joined has one row for each. Combine its rows first"
            )
        place[key] = row
    matched = [place.get(key) for key in wanted]
    if all(row is None for row in matched):
        raise DataError(
            f"{other.path}: `join` by {', '.join(shared)} matches no row of {rows.path.name}; it has "
            f"{_said(keys[0], shared)}, {rows.path.name} has {_said(wanted[0], shared)}"
        )
    return matched


def _filled(rows: Rows, template: str) -> Texts:
    fields = {field: _field(rows, field) for field in dict.fromkeys(_FIELD.findall(template))}
    fixed = _FIELD.split(template)
    filled: Texts = []
    for row in range(len(rows)):
        cells = {field: texts[row] for field, texts in fields.items()}
        complete = None not in cells.values()
        # Every other piece is the name of a field.
        pieces = (str(cells[piece]) if number % 2 else piece for number, piece in enumerate(fixed))
        filled.append("".join(pieces) if complete else None)
    return filled


def _field(rows: Rows, field: str) -> Texts:
    column, part, length = field, None, None
    names = rows.table.column_names
    if field not in names:
        column, part, length = _PART.fullmatch(field).group("column", "part", "length")  # type: ignore[union-attr]
    if column not in names:
        raise DataError(
            f"{rows.path}: {{{field}}} needs the column {column!r}; found {', '.join(names)}"
            f"{did_you_mean(column, names)}"
        )
    texts: Texts = text_of(rows.column(column)).to_pylist()
    if part is not None:
        texts = [
            None if text is None else _part(rows, row, text, int(part)) for row, text in enumerate(texts)
        ]
    return texts if length is None else [text and text[: int(length)] for text in texts]


def _part(rows: Rows, row: int, text: str, part: int) -> str:
    parts = text.replace("\\", "/").strip("/").split("/")
    if not -len(parts) <= part < len(parts):
        raise DataError(f"{rows.where(row)}: {text!r} has {len(parts)} parts, so there is no part {part}")
    return parts[part]


def _keys(rows: Rows, shared: Sequence[str]) -> list[str]:
    columns = [text_of(rows.column(name)).fill_null("").to_pylist() for name in shared]
    return [_APART.join(cells) for cells in zip(*columns, strict=True)]


def _said(key: str, shared: Sequence[str]) -> str:
    return ", ".join(f"{name} {cell!r}" for name, cell in zip(shared, key.split(_APART), strict=True))


def _found(path: Path, folder: Path) -> Path:
    beside = folder / path
    if not path.is_file() and not beside.is_file():
        raise UsageError(f"`join`: there is no file {path}, neither here nor beside the table")
    return beside if beside.is_file() else path
