"""Rules for the cells of any column: blanks, words for a missing value, numbers, truth values, Unicode.

They are the same for every column of a kind, are stated in ``docs/data.md``, and say how many cells they touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import UsageError
from embedstore.tables.remarks import Remark, counted, some_of

# Blanks of Unicode, no-break and zero-width ones, byte order marks and the NULs that pad texts of a fixed width.
_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_ZERO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\xad"
BLANKS = _SPACES + _ZERO_WIDTH + "\0"
# Compared without case; "None" counts only where it cannot be a word of its own, see `drop_none`.
MISSING_WORDS = (
    "na",
    "n/a",
    "n.a.",
    "#n/a",
    "#na",
    "nan",
    "-nan",
    "null",
    "<na>",
    "#null!",
    "#value!",
    "#div/0!",
    "#n/a n/a",
    "#name?",
    "#num!",
    "#ref!",
    "\\n",  # what databases write
    "(null)",
    "[null]",
    "<null>",
    "not available",
)
# Missing beside numbers and truth values (`drop_none`); elsewhere they may be words of their own.
_WORDS_BESIDE_NUMBERS = pa.array(["none", "nil", "unknown", "missing", ".", "..", "?", "-", "--", "---", "*"])
# "Nobody knows", or a value of its own: asked where it would make a class or one patient.
DOUBTFUL_WORDS = frozenset(
    (
        "unknown",
        "unk",
        "missing",
        "nil",
        "n/d",
        "tbd",
        "not known",
        "not recorded",
        "not reported",
        "not done",
    )
)
_NUMBER = r"^[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_WHOLE_NUMBER = r"^[+-]?[0-9]+$"
_DECIMAL_COMMA = r"^[+-]?(0|[1-9][0-9]*)(,[0-9]+)?$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z?$"
_MIDNIGHT = r"[ T]00:00:00(\.0+)?Z?$"
_TRUTH = ("true", "false")
_FIRST_CELLS = 64
_EXACT_FLOAT = 2.0**53


@dataclass(frozen=True)
class CellRules:
    """What a user decides about cells.

    Parameters
    ----------
    missing
        Further words for a missing value, compared without case, in every column.
    as_written
        Columns whose cells are taken letter by letter; only an empty cell is missing.
    within_parent
        Manifest columns (``study_id``, ``series_id``) whose ids are numbered anew within each patient or study;
        ``patient_id=COLUMN`` where patients are, within each place that the column names.
    """

    missing: tuple[str, ...] = ()
    as_written: tuple[str, ...] = ()
    within_parent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.within_parent:
            if name not in ("study_id", "series_id") and not re.fullmatch("patient_id=.+", name):
                raise UsageError(
                    f"`within_parent` takes study_id, series_id and patient_id=COLUMN; found {name!r}"
                )

    @property
    def patients_within(self) -> str | None:
        """The column within which patients are numbered anew, if any."""
        ways = [name.partition("=")[2] for name in self.within_parent if name.startswith("patient_id=")]
        return ways[-1] if ways else None


def about(name: str) -> str:
    """Return the subject of remarks on a column."""
    return f"column {name}"


def trim(name: str, cells: pa.ChunkedArray, rules: CellRules) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Return text without blanks around it and without words that mean a missing value; ``""`` becomes null."""
    if name in rules.as_written:
        return without(cells, pc.equal(cells, "")), ()
    remarks = []
    trimmed = pc.utf8_trim(cells, characters=BLANKS)
    if touched := _count(pc.not_equal(trimmed, cells)):
        remarks.append(Remark(about(name), f"{counted(touched, 'value')} had blanks, trimmed"))
    trimmed, more = _without_single_quotes(name, trimmed)
    remarks += more
    if _count(pc.starts_with(trimmed, '="')):
        unwrapped = pc.replace_substring_regex(trimmed, r'^="(.*)"$', r"\1")
        touched = _count(pc.not_equal(unwrapped, trimmed))
        trimmed = unwrapped
        remarks.append(Remark(about(name), f'{counted(touched, "value")} were written as a formula ="..."'))
    words = pa.array([*MISSING_WORDS, *(word.lower() for word in rules.missing)])
    missing = pc.or_(pc.is_in(pc.utf8_lower(trimmed), value_set=words), pc.equal(trimmed, "NaT"))
    if touched := _count(missing):
        seen = pc.unique(trimmed.filter(missing)).to_pylist()
        remarks.append(Remark(about(name), f"{counted(touched, 'value')} {some_of(seen)} taken as missing"))
    return without(trimmed, pc.or_(missing, pc.equal(trimmed, ""))), tuple(remarks)


def _without_single_quotes(name: str, cells: pa.ChunkedArray) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Take off ``'...'`` around texts, or ``'`` in front, where every text of the column has it (as SQL, as sheets)."""
    given = cells.filter(pc.not_equal(cells, ""))
    quoted = pc.match_substring_regex(given, "^'[^']*'?$")
    words = pc.is_in(pc.utf8_lower(given), value_set=pa.array(["null"]))
    if not _count(quoted) or pc.all(pc.or_(quoted, words)).as_py() is False:
        return cells, ()
    closed = pc.any(pc.match_substring_regex(given, "'$")).as_py()
    how = "stood in single quotes" if closed else "stood behind an apostrophe"
    said = Remark(about(name), f"{counted(_count(quoted), 'value')} {how}, taken off")
    return pc.replace_substring_regex(cells, "^'([^']*)'?$", r"\1"), (said,)


def tidy(name: str, cells: pa.ChunkedArray, rules: CellRules) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Return text in composed Unicode (NFC), with ordinary blanks inside and none of no width."""
    if name in rules.as_written or pc.all(pc.string_is_ascii(cells)).as_py() is not False:
        return cells, ()
    remarks = []
    plain = pc.replace_substring_regex(cells, f"[{_ZERO_WIDTH}]", "")
    plain = pc.replace_substring_regex(plain, f"[{_SPACES}]", " ")
    if touched := _count(pc.not_equal(plain, cells)):
        remarks.append(
            Remark(about(name), f"{counted(touched, 'value')} held no-break or zero-width blanks, replaced")
        )
    composed = pc.utf8_normalize(plain, form="NFC")
    if touched := _count(pc.not_equal(composed, plain)):
        remarks.append(
            Remark(about(name), f"{counted(touched, 'value')} in decomposed Unicode, composed (NFC)")
        )
    return composed, tuple(remarks)


def drop_none(
    name: str, cells: pa.ChunkedArray, rules: CellRules
) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Take ``None``, ``.``, ``?`` and their like as missing, where all other cells are numbers or truth values."""
    none = pc.is_in(pc.utf8_lower(cells), value_set=_WORDS_BESIDE_NUMBERS)
    touched = 0 if name in rules.as_written else _count(none)
    if not touched:
        return cells, ()
    others = cells.filter(pc.invert(pc.fill_null(none, False))).drop_null()
    if not (_all_match(others, _NUMBER) or _all_truth(others)):
        return cells, ()
    if not len(others):  # a column of nothing but such words is no column of numbers
        return cells, ()
    return without(cells, none), (_taken_as_missing(name, cells, none),)


def drop_signs(
    name: str, cells: pa.ChunkedArray, rules: CellRules
) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Take ids without any letter or digit (``-``, ``?``) as missing."""
    signs = pc.invert(pc.match_substring_regex(cells, r"[\pL\pN]"))
    if name in rules.as_written or not _count(signs):
        return cells, ()
    return without(cells, signs), (_taken_as_missing(name, cells, signs),)


def doubtful_words(name: str, counts: Mapping[str, int], rules: CellRules) -> str:
    """Return which cells may mean that nobody knows, with their rows; "" where there are none."""
    doubtful = [] if name in rules.as_written else [word for word in counts if word.lower() in DOUBTFUL_WORDS]
    return " and ".join(f"{word!r} ({counted(counts[word], 'row')})" for word in sorted(doubtful))


def _taken_as_missing(name: str, cells: pa.ChunkedArray, chosen: pa.ChunkedArray) -> Remark:
    seen = pc.unique(cells.filter(chosen)).to_pylist()
    words = ["None" if word.lower() == "none" else word for word in seen]
    return Remark(
        about(name),
        f"{counted(_count(chosen), 'value')} {some_of(list(dict.fromkeys(words)))} taken as missing",
    )


def numbers_or_text(
    name: str, cells: pa.ChunkedArray, rules: CellRules
) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Return a column as numbers where each of its cells is one, so that every file format gives the same.

    Leading zeros, more digits than a number holds, and `CellRules.as_written` keep text; ``TRUE`` becomes ``true``.
    """
    if pa.types.is_floating(cells.type):
        return _whole_where_all_are(cells), ()
    if not pa.types.is_string(cells.type) or name in rules.as_written:
        return cells, ()
    cells, remarks = tidy(name, cells, rules)
    cells, more = drop_none(name, cells, rules)
    remarks += more
    given = cells.drop_null()
    if len(given) and _all_truth(given):
        return pc.utf8_lower(cells), remarks
    return (_as_numbers(cells) if len(given) and _all_match(given, _NUMBER) else cells), remarks


def points_for_commas(
    name: str, cells: pa.ChunkedArray, rules: CellRules
) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Read decimal commas, where every cell is a number and one has a comma."""
    given = cells.drop_null()
    if name in rules.as_written or not len(given) or not _all_match(given, _DECIMAL_COMMA):
        return cells, ()
    touched = _count(pc.match_substring(given, ","))
    if not touched:
        return cells, ()
    words = f"{counted(touched, 'value')} had a decimal comma, read as a point"
    return pc.replace_substring(cells, ",", "."), (Remark(about(name), words),)


def times_in_one_way(
    name: str, cells: pa.ChunkedArray, rules: CellRules
) -> tuple[pa.ChunkedArray, tuple[Remark, ...]]:
    """Write ISO times in one way, where every cell is one: as dates where all are at midnight."""
    given = cells.drop_null()
    if name in rules.as_written or not len(given) or not _all_match(given, _TIME):
        return cells, ()
    plain = dates_where_midnight(pc.replace_substring(cells, "T", " "))
    touched = _count(pc.not_equal(plain, cells))
    words = f"{counted(touched, 'time')} such as {given[0].as_py()!r} written in one way"
    return plain, (Remark(about(name), words),) if touched else ()


def dates_where_midnight(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ISO times as dates where all are at midnight, and without zeros at the end of their fractions."""
    if pc.all(pc.match_substring_regex(cells, _MIDNIGHT)).as_py() is not False:
        return pc.replace_substring_regex(cells, _MIDNIGHT, "")
    return pc.replace_substring_regex(cells, r"\.0+(Z?)$|(\.[0-9]*[1-9])0+(Z?)$", r"\1\2\3")


def text_of(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text; a whole number has no decimals, whatever the column's type made of it."""
    if pa.types.is_floating(cells.type):
        cells = _whole_where_all_are(cells)
    if not pa.types.is_floating(cells.type):
        return cells.cast(pa.string())
    return map_values(cells, lambda number: str(int(number)) if float(number).is_integer() else repr(number))


def map_values(cells: pa.ChunkedArray, change: Callable[[Any], str | None]) -> pa.ChunkedArray:
    """Return text made of each different value by `change`; null stays null."""
    coded = cells.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    words = pa.array([change(value) for value in coded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([words.take(coded.indices)])


def _as_numbers(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    if _all_match(cells, _WHOLE_NUMBER):
        try:
            return cells.cast(pa.int64())
        except pa.ArrowInvalid:  # of more than 64 bits
            pass
    digits = pc.utf8_length(pc.replace_substring_regex(pc.unique(cells), r"[eE].*|[^0-9]", ""))
    if (pc.max(digits).as_py() or 0) > 17:  # more than a float holds: an accession number, a hash
        return cells
    numbers = pc.cast(pc.replace_substring_regex(cells, r"^\+", ""), pa.float64())
    if not pc.all(pc.is_finite(numbers)).as_py():
        return cells
    return _whole_where_all_are(numbers)


def _whole_where_all_are(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return floats as int64 where all are whole: a column of whole numbers becomes floats when one is missing."""
    whole = pc.and_(pc.equal(pc.floor(cells), cells), pc.less(pc.abs(cells), _EXACT_FLOAT))
    return cells.cast(pa.int64()) if pc.all(whole).as_py() is not False else cells


def _all_match(cells: pa.ChunkedArray, pattern: str) -> bool:
    # The first cells tell of most columns that are something else.
    return all(
        pc.all(pc.match_substring_regex(some, pattern)).as_py() is not False
        for some in (cells.slice(0, _FIRST_CELLS), cells)
    )


def _all_truth(cells: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.is_in(pc.utf8_lower(cells), value_set=pa.array(_TRUTH))).as_py() is not False)


def _count(chosen: pa.ChunkedArray) -> int:
    return int(pc.sum(chosen).as_py() or 0)


def without(cells: pa.ChunkedArray, chosen: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells with null where `chosen` is true or null."""
    if not chosen.null_count and not pc.any(chosen).as_py():
        return cells
    return pc.if_else(pc.fill_null(chosen, True), pa.scalar(None, cells.type), cells)
