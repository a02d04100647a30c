"""Columns made from others by a template, or joined from other tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from embedstore.datasets.table_rows import Cell, Rows, as_text, read_rows
from embedstore.errors import DataError, UsageError, did_you_mean

_FIELD = re.compile(r"\{([^{}]+)\}")
# {Path[-2]}: a part of a path; {subject_id:.2}: the first characters.
_PART = re.compile(r"(?P<column>.+?)(?:\[(?P<part>-?\d+)\])?(?::\.(?P<length>\d+))?")
_SPLIT_WORDS = {
    "training": "train",
    "val": "valid",
    "validate": "valid",
    "validation": "valid",
    "testing": "test",
}
_APART = "\0"


def is_template(name: str, columns: Mapping[str, object]) -> bool:
    """Whether the name of a column is none, but says how to make one: ``files/{patient}/{image}.png``."""
    return name not in columns and _FIELD.search(name) is not None


def fill_template(rows: Rows, template: str) -> list[Cell]:
    """Return a column made from others.

    Parameters
    ----------
    rows
        The table.
    template
        Text with ``{COLUMN}`` for a cell, ``{COLUMN[-2]}`` for a part of a path (counted from 0, or from the end),
        ``{COLUMN:.2}`` for its first characters.

    Returns
    -------
    list
        One text per row; None where a cell is empty.

    Raises
    ------
    DataError
        If the table lacks a column, or a path has too few parts; with the row.

    Examples
    --------
    >>> rows = Rows(Path("t.csv"), {"file": ["train/p1/s2/a.png"]}, ["line 2"])
    >>> fill_template(rows, "{file[-3]}-{file[-2]}")
    ['p1-s2']
    """
    texts = [_field(rows, field) for field in _FIELD.findall(template)]
    fixed = _FIELD.split(template)[::2]
    filled: list[Cell] = []
    for cells in zip(*texts, strict=True):
        known = [cell for cell in cells if cell is not None]
        complete = len(known) == len(cells)
        filled.append("".join(sum(zip(fixed, [*known, ""], strict=True), ())) if complete else None)
    return filled


def join_tables(rows: Rows, others: Sequence[Path]) -> tuple[Rows, dict[str, str]]:
    """Return a table with the columns of others beside its own, matched by the columns that both have.

    Parameters
    ----------
    rows
        The table; its rows stay as they are.
    others
        Tables with one row for each combination of the shared columns; beside `rows` or by their full path.

    Returns
    -------
    Rows
        The table with further columns; a cell is empty where the other table has no such row.
    dict
        What a person should know: by which columns, and how many rows matched.

    Raises
    ------
    DataError
        If nothing is shared or matches, or a table has two rows for one combination.
    """
    facts = {}
    for path in others:
        other = read_rows(_found(path, rows.path.parent))
        shared = [name for name in rows.columns if name in other.columns]
        if not shared:
            raise DataError(
                f"{other.path}: `join` needs a column that {rows.path.name} has too ({', '.join(rows.columns)}); "
                f"found {', '.join(other.columns)}"
            )
        place: dict[str, int] = {}
        for row, key in enumerate(_keys(other, shared)):
            if key in place:
                raise DataError(
                    f"{other.where(row)}: {_said(key, shared)} stands on {other.places[place[key]]} already; a table "
                    "that is joined has one row for each. Combine its rows first"
                )
            place[key] = row
        matched = [place.get(key) for key in _keys(rows, shared)]
        count = sum(row is not None for row in matched)
        if not count:
            raise DataError(
                f"{other.path}: `join` by {', '.join(shared)} matches no row of {rows.path.name}; it has "
                f"{_said(next(_keys(other, shared)), shared)}, {rows.path.name} has "
                f"{_said(next(_keys(rows, shared)), shared)}"
            )
        added = {
            name: [None if row is None else cells[row] for row in matched]
            for name, cells in other.columns.items()
            if name not in shared
        }
        rows = replace(rows, columns=rows.columns | added)
        facts[f"joined {other.path.name}"] = (
            f"by {', '.join(shared)}: {count:,} of {len(rows):,} rows have a match"
        )
    return rows, facts


def read_splits(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, str]]:
    """Return splits in the manifest's words (``validate`` is ``valid``), and what was read as what."""
    read = [_SPLIT_WORDS.get(str(cell).casefold(), cell) for cell in cells]
    words = {str(cell): str(word) for cell, word in zip(cells, read, strict=True) if cell != word}
    facts = {
        "words read as split": ", ".join(
            f"{word!r} as {split} {sum(cell == word for cell in cells):,}" for word, split in words.items()
        )
    }
    return read, facts if words else {}


def _field(rows: Rows, field: str) -> list[str | None]:
    column, part, length = field, None, None
    if field not in rows.columns:
        column, part, length = _PART.fullmatch(field).group("column", "part", "length")  # type: ignore[union-attr]
    if column not in rows.columns:
        raise DataError(
            f"{rows.path}: {{{field}}} needs the column {column!r}; found {', '.join(rows.columns)}"
            f"{did_you_mean(column, rows.columns)}"
        )
    texts = [as_text(cell) for cell in rows.columns[column]]
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


def _keys(rows: Rows, shared: Sequence[str]) -> map[str]:
    return map(
        _APART.join, zip(*([as_text(c) or "" for c in rows.columns[name]] for name in shared), strict=True)
    )


def _said(key: str, shared: Sequence[str]) -> str:
    return ", ".join(f"{name} {cell!r}" for name, cell in zip(shared, key.split(_APART), strict=True))


def _found(path: Path, folder: Path) -> Path:
    beside = folder / path
    if not path.is_file() and not beside.is_file():
        raise UsageError(f"`join`: there is no file {path}, neither here nor beside the table")
    return beside if beside.is_file() else path
