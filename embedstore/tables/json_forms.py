"""One JSON document -> a list of records, whichever way pandas or a database wrote it."""

from __future__ import annotations

from typing import Any

from embedstore.errors import DataError

Records = list[dict[str, Any]]
_HOLDERS = ("data", "records", "rows", "items", "results")
AS_RECORDS = "write it as records (pandas: `to_json(path, orient='records')`)"


def records_of(document: Any, *, where: str) -> tuple[Records, str] | None:
    """Return the records of a document and what was made of its form, or None where it is a record itself.

    Known are pandas' ``orient`` ``split``, ``table``, ``index`` and ``columns``, an object of one list per column, and
    records below ``data``, ``records``, ``rows``, ``items`` or ``results``.

    Parameters
    ----------
    document
        What was parsed.
    where
        The file, for messages.

    Raises
    ------
    DataError
        If lists differ in length, or rows and columns cannot be told apart.

    Examples
    --------
    >>> records_of({"path": {"0": "a.png", "1": "b.png"}, "label": {"0": 1}}, where="t.json")[0]
    [{'path': 'a.png', 'label': 1}, {'path': 'b.png', 'label': None}]
    """
    if not isinstance(document, dict) or not document:
        return None
    if set(document) >= {"columns", "data"} and _is_list_of(document["data"], list):
        numbered = document.get("index") in (None, list(range(len(document["data"]))))
        said = "rows of cells (`orient='split'`) read" + ("" if numbered else ", their index left out")
        return _by_names(document["columns"], document["data"], where), said
    for holder in _HOLDERS:
        if _is_list_of(document.get(holder), dict):
            return document[holder], f"records below {holder!r} read"
    cells = list(document.values())
    if all(isinstance(cell, list) for cell in cells):
        return _of_lists(document, where), "a list for each column read"
    if all(isinstance(cell, dict) for cell in cells):
        return _of_objects(document, where)
    return None


def _is_list_of(cell: Any, kind: type) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(entry, kind) for entry in cell)


def _by_names(names: Any, rows: list[list[Any]], where: str) -> Records:
    if not isinstance(names, list) or any(len(row) != len(names) for row in rows):
        raise DataError(f"{where}: 'columns' and the rows below 'data' must have one length; {AS_RECORDS}")
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]


def _of_lists(columns: dict[str, list[Any]], where: str) -> Records:
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise DataError(f"{where}: the lists of its columns must have one length; found {found}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _of_objects(document: dict[str, dict[str, Any]], where: str) -> tuple[Records, str]:
    outer, inner = list(document), list(dict.fromkeys(name for cells in document.values() for name in cells))
    numbered = [all(map(str.isdecimal, names)) for names in (outer, inner)]
    if numbered[0] == numbered[1]:
        raise DataError(
            f"{where}: an object of objects, of which {outer[:2]} or {inner[:2]} may be the columns; {AS_RECORDS}"
        )
    if numbered[0]:
        return list(document.values()), "an object for each row (`orient='index'`) read"
    records = [{name: cells.get(row) for name, cells in document.items()} for row in inner]
    return records, "an object for each column (`orient='columns'`) read"
