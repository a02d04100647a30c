"""Rules for columns of ids: whatever spelling could split one patient in two, or merge two, is mended or refused."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import DataError
from embedstore.tables.cell_rules import (
    DOUBTFUL_WORDS,
    CellRules,
    about,
    doubtful_words,
    drop_none,
    drop_signs,
    map_values,
    text_of,
    tidy,
)
from embedstore.tables.remarks import Remark, counted
from embedstore.tables.rows import Rows

_WHOLE = r"^[+-]?[0-9]+$"
_WHOLE_WITH_DECIMALS = r"^[+-]?[0-9]+[.]0*$"
_WITH_EXPONENT = r"^[0-9](\.[0-9]+)?[eE]\+[0-9]+$"
# Zeros that lead a run of digits, unless they are decimals.
_LEADING_ZEROS = r"(^|[^0-9.,])0+([0-9])"
_EXACT = 2.0**53
_DOUBTFUL = pa.array(sorted((*DOUBTFUL_WORDS, "none")))
_SHOWN = 3
# Letters of other scripts that look like Latin ones, and what typists and word processors put for a hyphen.
LOOK_ALIKE = str.maketrans(
    "авекмнорстхіјѕαβεζηικμνορτυχ‐‑‒–—−_",
    "abekmhopctxijsabezhikmnoptux-------",
)


def read_ids(rows: Rows, name: str, rules: CellRules) -> Rows:
    """Return the rows with a column of ids as text, spelled by one rule.

    Unicode is composed; whole numbers lose decimals that a program added (``53.0``) and exponents (``1e+05``).

    Raises
    ------
    DataError
        If numbers have lost digits on their way into the file; with a row. If several rows have a word (``unknown``)
        that may be one id or none.
    """
    cells = rows.column(name)
    if pa.types.is_floating(cells.type):
        beyond = pc.greater(pc.abs(cells), _EXACT)
        if pc.any(beyond).as_py():
            raise _lost_digits(rows, name, beyond, "as floating-point numbers, which keep about 15 digits")
    if not pa.types.is_string(cells.type):
        return rows.with_column(name, text_of(cells))
    if name in rules.as_written:
        return rows
    cells, remarks = tidy(name, cells, rules)
    cells, more = drop_none(name, cells, rules)
    cells, signs = drop_signs(name, cells, rules)
    _refuse_doubtful(rows, name, cells, rules)
    cells, numbers = _without_decimals(rows, name, cells)
    return rows.with_column(name, cells, *remarks, *more, *signs, *numbers)


def _refuse_doubtful(rows: Rows, name: str, cells: pa.ChunkedArray, rules: CellRules) -> None:
    counted_cells = pc.value_counts(cells)
    words, numbers = counted_cells.field("values"), counted_cells.field("counts")
    doubtful = pc.is_in(pc.utf8_lower(words), value_set=_DOUBTFUL)
    chosen = pc.and_(doubtful, pc.greater(numbers, 1))
    counts = dict(zip(words.filter(chosen).to_pylist(), numbers.filter(chosen).to_pylist(), strict=True))
    none = [word for word in counts if word.lower() == "none"]
    said = doubtful_words(name, counts, rules)
    if none and not said:
        said = f"{none[0]!r} ({counted(counts[none[0]], 'row')})"
    if said:
        word = none[0] if none else said.split("'")[1]
        raise DataError(
            f"{rows.path}: column {name!r} holds {said}: one id, or none known? Name it with `missing` {word!r} "
            f"if none is known, or take the column as it is with `as_written` {name}."
        )


def require_one_spelling(rows: Rows, name: str, rules: CellRules, *, parent: str | None = None) -> None:
    """Refuse ids that may be one id spelled differently: ``007`` and ``7``, ``p1`` and ``P1``, ``1`` and ``1.0``.

    Parameters
    ----------
    rows
        The table, its ids read by `read_ids`.
    name
        The column.
    rules
        A column in `CellRules.as_written` is not asked.
    parent
        Column of the ids within which those of `name` are unique, if any: only ids of one parent are compared.

    Raises
    ------
    DataError
        With the first few groups, and how many rows each spelling has.
    """
    if name in rules.as_written:
        return
    ids = pc.unique(rows.column(name)).drop_null()
    keys = _loose(ids)
    if len(pc.unique(keys)) == len(ids):
        return
    by_key = pa.table({"key": keys, "id": ids})
    counts = by_key.group_by("key").aggregate([("id", "count")])
    doubled = counts.filter(pc.greater(counts.column("id_count"), 1)).column("key")
    suspects = by_key.filter(pc.is_in(keys, value_set=doubled.combine_chunks()))
    spelled = dict(zip(suspects.column("id").to_pylist(), suspects.column("key").to_pylist(), strict=True))
    groups = _groups(rows, name, spelled, parent)
    if groups:
        shown = "; ".join(
            " and ".join(f"{spelling!r} ({counted(count, 'row')})" for spelling, count in group.items())
            for group in groups[:_SHOWN]
        )
        more = f"; and {len(groups) - _SHOWN:,} more" if len(groups) > _SHOWN else ""
        raise DataError(
            f"{rows.path}: column {name!r} holds ids that may be one, spelled differently: {shown}{more}. Write them "
            f"alike, or keep them apart with `as_written` {name}."
        )


def _groups(rows: Rows, name: str, spelled: dict[str, str], parent: str | None) -> list[dict[str, int]]:
    """Return groups of different spellings within one parent, with how many rows each has."""
    chosen = pc.is_in(rows.column(name), value_set=pa.array(list(spelled)))
    wanted = {"id": rows.column(name)} | ({"parent": rows.column(parent)} if parent else {})
    table = pa.table(wanted).filter(pc.fill_null(chosen, False))
    counts = table.group_by(list(wanted)).aggregate([([], "count_all")]).to_pylist()
    groups: dict[tuple[str | None, str], dict[str, int]] = {}
    for entry in counts:
        group = groups.setdefault((entry.get("parent"), spelled[entry["id"]]), {})
        group[entry["id"]] = entry["count_all"]
    return [dict(sorted(group.items())) for group in groups.values() if len(group) > 1]


def _loose(ids: pa.Array) -> pa.Array:
    """Return ids without what a program or a typist may change.

    That is case, blanks, leading zeros, decimals of zeros, kinds of hyphens, an apostrophe in front (by which
    spreadsheets mark text), and letters of another script that look the same.
    """
    lower = pc.replace_substring_regex(pc.utf8_lower(pc.utf8_normalize(ids, form="NFKC")), r"^'|\s+", "")
    if pc.any(pc.match_substring_regex(lower, r"[^\x00-\x7f]|_")).as_py():
        lower = pa.array([text.translate(LOOK_ALIKE) for text in lower.to_pylist()], pa.string())
    whole = pc.replace_substring_regex(lower, r"^([0-9]+)[.,]0+$", r"\1")
    return pc.replace_substring_regex(whole, _LEADING_ZEROS, r"\1\2")


@dataclass(frozen=True)
class _Kinds:
    whole: pa.ChunkedArray
    decimals: pa.ChunkedArray
    exponent: pa.ChunkedArray


def _without_decimals(
    rows: Rows, name: str, cells: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Write whole numbers without decimals and exponents, where every id of the column is a whole number."""
    kinds = _Kinds(
        *(pc.match_substring_regex(cells, kind) for kind in (_WHOLE, _WHOLE_WITH_DECIMALS, _WITH_EXPONENT))
    )
    if pc.all(pc.or_(kinds.whole, pc.or_(kinds.decimals, kinds.exponent))).as_py() is False:
        return cells, ()
    touched = (pc.sum(kinds.decimals).as_py() or 0) + (pc.sum(kinds.exponent).as_py() or 0)
    if not touched:
        return cells, ()
    lost = pc.and_(kinds.exponent, pc.invert(_exact(cells)))
    if pc.any(lost).as_py():
        raise _lost_digits(rows, name, lost, "in the short form of a spreadsheet, which drops digits")
    changed = pc.replace_substring_regex(cells, r"\.0*$", "")
    if pc.any(kinds.exponent).as_py():
        changed = map_values(changed, _whole_number)
    words = f"{counted(touched, 'value')} such as {_example(cells, kinds)} written as whole numbers"
    return changed, (Remark(about(name), words),)


def _exact(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether an exponent stands behind all digits: R and pandas write ``1e+05``, spreadsheets ``1.23457E+11``."""
    return pc.match_substring_regex(
        cells, r"^[0-9]([eE]\+(0?[0-9]|1[0-5])|\.[0-9]{1,14}e\+(0?[0-9]|1[0-5]))$"
    )


def _whole_number(cell: object) -> str:
    text = str(cell)
    return str(int(float(text))) if "e" in text.lower() else text


def _example(cells: pa.ChunkedArray, kinds: _Kinds) -> str:
    return repr(cells.filter(pc.or_(kinds.decimals, kinds.exponent))[0].as_py())


def _lost_digits(rows: Rows, name: str, where: pa.ChunkedArray, how: str) -> DataError:
    row = pc.index(pc.fill_null(where, False), True).as_py()
    return DataError(
        f"{rows.where(row)}: column {name!r} holds ids {how}: {rows.column(name)[row].as_py()!r}. Different ids may "
        f"have become one. Export the column as text, or take it as it is with `as_written` {name}."
    )
