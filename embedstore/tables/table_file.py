"""One reader for every table that a user brings: CSV and its relatives, JSON lines and Parquet."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError
from embedstore.tables.arrow_columns import read_json, read_parquet
from embedstore.tables.cell_rules import BLANKS, CellRules, points_for_commas, times_in_one_way, trim
from embedstore.tables.delimited import read_delimited
from embedstore.tables.encodings import kind_of_content
from embedstore.tables.remarks import Remark, counted, some_of
from embedstore.tables.rows import Rows

_DELIMITED = (".csv", ".tsv", ".tab", ".txt")
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
ENDINGS = (*_DELIMITED, *_PARQUET, *_JSON)
# Names that pandas gives to an index without one.
_INDEX_NAMES = ("Unnamed: 0", "__index_level_0__")
TABLE = "table"
_OF_PROGRAMS = (".xlsx", ".xls", ".xlsm", ".ods", ".sav", ".dta", ".rds", ".sas7bdat", ".feather", ".xml")
_SAVE_AS = ". Save it as CSV from its own program"
_ENDING_OF = {"Parquet": ".parquet", "JSON": ".json"}


def read_rows(path: Path, rules: CellRules | None = None, *, lists: Container[str] = ()) -> Rows:
    """Read a table, whatever program wrote it, and apply the rules that hold for every column.

    Separator, encoding and quoting are found out; columns without a name are left out, and so are rows without
    any cell; blanks around cells are trimmed, and words that mean a missing value become null. What was guessed or
    touched stands in `Rows.remarks`.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv``, ``.txt``, ``.jsonl``, ``.json`` (each also with ``.gz``) or ``.parquet``.
    rules
        What the user decides about cells.
    lists
        Columns whose cells may be lists of text in Parquet and JSON; they become text, as JSON writes them.

    Raises
    ------
    DataError
        If there is no such file, its ending is another, or its content is not what the ending says.
    """
    suffix = _suffix_of(path)
    if suffix in ENDINGS and not path.is_file():
        raise DataError(f"{path}: there is no such file; name the table's file")
    try:
        _require_ending(path, suffix)
        found = _read(path, suffix, lists)
    except (UnicodeDecodeError, pa.ArrowException, OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {error}") from error
    rows = _named_rows(path, found)
    if not len(rows):
        raise DataError(f"{path}: the table has no rows; found columns {rows.table.column_names}")
    rows = _without_repeated_headers(rows)
    return _without_empty_rows(_trimmed(rows, rules or CellRules(), commas=found.commas))


def _require_ending(path: Path, suffix: str) -> None:
    """Refuse a file whose ending is none of a table, or another than its content's."""
    kind = kind_of_content(path) if path.is_file() else None
    own = _ENDING_OF.get(kind or "")
    if suffix not in ENDINGS:
        advice = _SAVE_AS if suffix in _OF_PROGRAMS or (kind and not own) else ""
        if not advice and path.is_file():
            advice = f". It holds {kind}: rename" if own else ". If it is separated text, rename"
            advice += f" it to {path.with_suffix(own or '.csv').name}"
        found = path.suffix or "no ending"
        raise DataError(f"{path}: a table must end in {', '.join(ENDINGS)}; found {found!r}{advice}")
    said = "Parquet" if suffix in _PARQUET else "JSON" if suffix in _JSON else None
    if kind is not None and kind != said:
        plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
        advice = f": rename it to {plain.with_suffix(own).name}" if own else _SAVE_AS
        raise DataError(f"{path}: its ending is {suffix}, and it holds {kind}{advice}")
    if kind is None and said == "Parquet":
        raise DataError(
            f"{path}: is no Parquet, whatever its ending says; copy it again, or rename it to "
            f"{path.with_suffix('.csv').name} if it is separated text"
        )


@dataclass(frozen=True)
class _Found:
    names: list[str]
    columns: list[pa.ChunkedArray]
    place: Callable[[int], str]
    words: tuple[str, ...] = ()
    commas: bool = False  # whether cells may hold decimal commas
    nested: tuple[str, ...] = ()  # columns of lists or structures, which are left out


def _suffix_of(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _read(path: Path, suffix: str, lists: Container[str]) -> _Found:
    if suffix in _PARQUET:
        names, columns, nested = read_parquet(path, lists)
        return _Found(names, columns, "row {}".format, _without_nested(nested), nested=nested)
    if suffix in _JSON:
        names, columns, places, words, nested = read_json(path, lists)
        return _Found(names, columns, places.__getitem__, words + _without_nested(nested), nested=nested)
    text = read_delimited(path)
    return _Found(list(text.header), list(text.columns), text.place, text.words, text.separator != ",")


def _without_nested(names: Sequence[str]) -> tuple[str, ...]:
    """Say which columns were left out because their cells are lists or structures."""
    return (
        (f"{counted(len(names), 'column')} of lists or structures left out ({some_of(names)})",)
        if names
        else ()
    )


def _named_rows(path: Path, found: _Found) -> Rows:
    names = [name.strip(BLANKS) for name in found.names]
    if not any(names):
        raise DataError(f"{path}: the table is empty; its first line must name the columns")
    words = list(found.words)
    if changed := [name for name, old in zip(names, found.names, strict=True) if name and name != old]:
        words.append(f"blanks around {counted(len(changed), 'column name')} trimmed ({some_of(changed)})")
    kept = []
    for number, (name, cells) in enumerate(zip(names, found.columns, strict=True)):
        if name and not (name in _INDEX_NAMES and _is_index(cells)):
            kept.append(number)
        else:
            words.append(_left_out(number, name, cells))
    kept, more = _without_twins(path, names, found, kept)
    columns = {names[number]: found.columns[number] for number in kept}
    remarks = tuple(Remark(TABLE, word) for word in [*words, *more])
    return Rows(path, pa.table(columns), found.place, remarks=remarks, nested=found.nested)


def _is_index(cells: pa.ChunkedArray) -> bool:
    return len(pc.unique(cells)) == len(cells)


def _left_out(number: int, name: str, cells: pa.ChunkedArray) -> str:
    which = f"column {number + 1}" + (f" ({name})" if name else ", which has no name,")
    given = [cell for cell in cells.slice(0, 3).to_pylist() if cell not in (None, "")]
    return f"{which} left out" + (f" (cells such as {some_of(given)})" if given else "")


def _without_twins(
    path: Path, names: list[str], found: _Found, kept: list[int]
) -> tuple[list[int], list[str]]:
    """Leave out columns of one name and equal cells; refuse those of one name and different cells."""
    words, unique = [], dict[str, int]()
    counts = Counter(names[number] for number in kept)
    for number in kept:
        name = names[number]
        first = unique.setdefault(name, number)
        if counts[name] == 1 or first == number:
            continue
        if found.columns[first].equals(found.columns[number]):
            words.append(f"column {number + 1} ({name}) left out, equal to column {first + 1}")
            continue
        raise DataError(
            f"{path}: column names must differ; columns {first + 1} and {number + 1} are both {name!r} and hold "
            "different cells. Rename or delete one."
        )
    return list(unique.values()), words


def _trimmed(rows: Rows, rules: CellRules, *, commas: bool) -> Rows:
    for name in rows.table.column_names:
        cells = rows.column(name)
        if not pa.types.is_string(cells.type):
            continue
        trimmed, remarks = trim(name, cells, rules)
        trimmed, more = times_in_one_way(name, trimmed, rules)
        remarks += more
        if commas:
            trimmed, more = points_for_commas(name, trimmed, rules)
            remarks += more
        inside = pc.match_substring(trimmed, "\0")
        if pc.any(inside).as_py():
            row = pc.index(inside, True).as_py()
            raise DataError(
                f"{rows.where(row)}: column {name!r} holds a NUL character, {trimmed[row].as_py()!r}"
            )
        rows = rows.with_column(name, trimmed, *remarks)
    return rows


def _without_repeated_headers(rows: Rows) -> Rows:
    """Leave out rows whose cells are the names of their columns: files that were put one behind the other."""
    repeated = None
    for name in rows.table.column_names:
        cells = rows.column(name)
        same = pc.equal(cells, name) if pa.types.is_string(cells.type) else None
        if same is None or not pc.any(same).as_py():
            return rows
        repeated = same if repeated is None else pc.and_(repeated, same)
    kept = pc.indices_nonzero(pc.invert(pc.fill_null(repeated, False)))
    count = len(rows) - len(kept)
    if not count or not len(kept) or rows.table.num_columns < 2:
        return rows
    return rows.take(kept).saying(
        Remark(TABLE, f"{counted(count, 'row')} left out that repeat{'s' * (count == 1)} the header")
    )


def _without_empty_rows(rows: Rows) -> Rows:
    empty = pa.chunked_array([pa.array([True] * len(rows))])
    for column in rows.table.columns:
        if not column.null_count:
            return rows
        empty = pc.and_(empty, column.is_null())
    kept = pc.indices_nonzero(pc.invert(empty))
    left_out = len(rows) - len(kept)
    if not left_out:
        return rows
    if not len(kept):
        raise DataError(f"{rows.path}: the table has no rows; found columns {rows.table.column_names}")
    return rows.take(kept).saying(Remark(TABLE, f"{counted(left_out, 'row')} without any cell left out"))
