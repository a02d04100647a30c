"""Conditions on columns of a manifest: ``anatomy=XR_WRIST``, ``age>=65``, ``view in AP,PA``.

The one place that knows their form; whatever takes `where` reads them here. Numbers compare as numbers, so that a
value can be written as it is shown or in any other way.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import count_records
from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.keys.keyed_ids import CLINICAL_IDS

_VALUES_APART = "\\"  # DICOM's own separator of the values of one attribute
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATOR = re.compile(r"!=|<=|>=|==|=|<|>|~|\s+in\s+")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_FIELD = re.compile(r'\s*"(?:[^"]|"")*"\s*(?=,|$)|[^,]*', re.DOTALL)
_UNSAFE_COLUMN = re.compile(r'^\s|\s$|\s+in\s|[!<>=~"]')
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
# Digits of these are names: patient 007 is not patient 7.
_NAMES = frozenset({"image_id", "path", "patient_id", "study_id", "series_id"})
_SHOWN = 5
_FORMS = "COLUMN=VALUE, COLUMN!=VALUE, COLUMN~PART, COLUMN<NUMBER (also <=, >, >=) or 'COLUMN in VALUE,VALUE'"


@dataclass(frozen=True)
class Condition:
    """What a record must be, or must not be.

    Parameters
    ----------
    column
        A column of the manifest.
    operator
        ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, or ``~``: the cell holds these letters, large or small.
    values
        What the cell must say, one of several for ``in``; ``""`` for an empty one. A cell of several values, as
        `image_type`, says each of them and all of them together.
    """

    column: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return condition_text(self.column, *self.values, operator=self.operator)

    def holds(self, cell: Any) -> bool:
        """Return whether a cell fulfils the condition; an empty cell is not smaller or larger than anything."""
        return self._holds(cell, as_number=not isinstance(cell, str) or self._compares_numbers((cell,)))

    def rows(self, column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Return (n,) bool: which cells of a column fulfil the condition.

        Text is compared as numbers where every cell of the column that is not empty is a number, and none begins
        with a 0 that only a name would have.

        Raises
        ------
        UsageError
            If text that is no number is to be smaller or larger than something.
        """
        encoded = column.combine_chunks()
        cells = encoded.unique().to_pylist()
        texts = [cell for cell in cells if isinstance(cell, str)]
        numbers = self._compares_numbers(texts)
        if self.operator in _ORDER and texts and not numbers:
            raise UsageError(
                f"`where` {self}: column {self.column!r} holds words ({_listed(texts)}), which are neither smaller nor "
                "larger; compare with = or !="
            )
        held = [self._holds(cell, as_number=numbers or not isinstance(cell, str)) for cell in cells]
        codes = pc.index_in(encoded, value_set=pa.array(cells, encoded.type), skip_nulls=False)
        rows: npt.NDArray[np.bool_] = np.asarray(held, np.bool_)[np.asarray(codes)]
        return rows

    def _compares_numbers(self, texts: Sequence[str]) -> bool:
        if self.column in _NAMES:
            return False
        return all(not text or (_NUMBER.fullmatch(text) and not _is_code(text)) for text in texts)

    def _holds(self, cell: Any, *, as_number: bool) -> bool:
        if self.operator in _ORDER:
            return cell not in (None, "") and _ORDER[self.operator](*_comparable(cell, self.values[0]))
        if self.operator == "~":
            return cell is not None and self.values[0].casefold() in str(cell).casefold()
        said = any(_says(cell, value, as_number=as_number) for value in self.values)
        return said != (self.operator == "!=")


Where = Mapping[str, str] | Sequence[str | Condition]


def parse_conditions(where: Where) -> tuple[Condition, ...]:
    """Turn ``["modality=CT", "image_type!=LOCALIZER", "age>=65", "view in AP,PA"]`` into conditions.

    A value, or a column, that holds an operator, a comma among several, or blanks at its ends stands in double
    quotes; a double quote inside is written twice. A mapping says ``column = value`` of each.

    Raises
    ------
    UsageError
        If a text has another form, or ``<`` stands before something that is no number.

    Examples
    --------
    >>> [str(condition) for condition in parse_conditions(["age >= 65", 'site in "A, B",C'])]
    ['age>=65', 'site in "A, B",C']
    """
    if isinstance(where, Mapping):
        return tuple(Condition(column, "=", (str(value),)) for column, value in where.items())
    if isinstance(where, str):
        raise UsageError(f"`where` takes a list of conditions; found the text {where!r}")
    return tuple(_parse(entry) if isinstance(entry, str) else entry for entry in where)


def rows_where(table: pa.Table, where: Sequence[Condition], *, holder: str) -> npt.NDArray[np.bool_]:
    """Return (n_rows,) bool: which rows of a manifest fulfil every condition.

    Parameters
    ----------
    table
        Rows of a manifest.
    where
        The conditions.
    holder
        What the rows are of, for messages.

    Raises
    ------
    UsageError
        If there is no such column, or one of words cannot be compared as asked.
    """
    kept = np.ones(table.num_rows, np.bool_)
    for condition in where:
        names = table.column_names
        if condition.column not in names:
            raise UsageError(
                f"`where`: {holder} has no column {condition.column!r}; it has {', '.join(names)}"
                f"{did_you_mean(condition.column, names)}"
            )
        kept &= condition.rows(table.column(condition.column))
    return kept


def none_left(table: pa.Table, where: Sequence[Condition]) -> str:
    """Say which condition leaves none of the rows of a manifest, and what its column holds."""
    left = np.ones(table.num_rows, np.bool_)
    for condition in where:
        cells = table.column(condition.column)
        left &= condition.rows(cells)
        if not left.any():
            values = [_shown(cell) for cell in sorted_cells(cells)]
            hint = did_you_mean(condition.values[0], values)
            return (
                f"`where` {condition} leaves none of {table.num_rows:,} images; the column holds, for example, "
                f"{_listed(values)}{hint}"
            )
    return ""


def select_records(collection: Collection, conditions: Sequence[Condition]) -> Collection:
    """Return the collection with the records that fulfil every condition; the summary says how many did not.

    Raises
    ------
    UsageError
        If the manifest has no such column, or one of words cannot be compared as asked.
    DataError
        If no record is left.
    """
    if not conditions:
        return collection
    manifest, left_out = collection.manifest, {}
    for asked in conditions:
        condition = _of_pseudonym(asked, collection)
        held = rows_where(manifest.table, [condition], holder="the data set")
        kept = replace(manifest, table=manifest.table.filter(pa.array(held)))
        if not len(kept):
            raise DataError(none_left(manifest.table, [condition]))
        left_out[f"left out by {condition}"] = len(manifest) - len(kept)
        manifest = kept
    counted = count_records(collection.manifest)
    rest = {name: fact for name, fact in collection.summary.items() if name not in counted}
    whole = {"images of the data set": len(collection.manifest)}
    return replace(collection, manifest=manifest, summary=count_records(manifest) | left_out | whole | rest)


def _of_pseudonym(condition: Condition, collection: Collection) -> Condition:
    """Return a condition on a clinical id (``PatientID=4711``) as one on the digest that stands for it."""
    spelled = {attribute.lower(): named for attribute, named in CLINICAL_IDS.items()}
    known = condition.column in collection.manifest.table.column_names
    if known or condition.column.lower() not in spelled or collection.key is None:
        return condition
    level, column = spelled[condition.column.lower()]
    values = tuple(collection.key.id_of(level, value) for value in condition.values)
    return replace(condition, column=column, values=values)


def condition_text(column: str, *values: Any, operator: str = "=") -> str:
    """Return a condition as it is typed: `parse_conditions` reads it back, whatever column and value hold.

    Examples
    --------
    >>> condition_text("age", 53.0), condition_text("site", " A"), condition_text("site", "A", "B, C", operator="in")
    ('age=53.0', 'site=" A"', 'site in A,"B, C"')
    """
    several = operator == "in"
    listed = ",".join(_quoted(_shown(value), comma=several) for value in values)
    named = _in_quotes(column) if _UNSAFE_COLUMN.search(column) else column
    return f"{named} in {listed}" if several else f"{named}{operator}{listed}"


def sorted_cells(column: pa.ChunkedArray) -> list[Any]:
    """Return the different cells of a column, numbers and words in their order, an empty one first."""
    cells = column.unique().to_pylist()
    return sorted(cells, key=lambda cell: (cell is not None, isinstance(cell, str), cell))


def _parse(text: str) -> Condition:
    quoted = _QUOTED.match(text)
    found = _OPERATOR.search(text, quoted.end() if quoted else 0)
    column = text[: found.start()].strip() if found else ""
    if found is None or not column or (quoted and quoted[0] != column):
        raise UsageError(f"`where` takes {_FORMS}; found {text!r}")
    sign, rest = found[0].strip(), text[found.end() :]
    values = _several(rest) if sign == "in" else (_unquoted(rest),)
    if not values:
        raise UsageError(f"`where` takes {_FORMS}; found {text!r}")
    if sign == "~" and not values[0]:
        raise UsageError(f"`where` {text}: after ~ must stand a part of what the cell holds; found nothing")
    if sign in _ORDER and not _NUMBER.fullmatch(values[0]):
        raise UsageError(f"`where` {text}: after {sign} must stand a number; found {values[0]!r}")
    return Condition(_unquoted(column), "=" if sign == "==" else sign, values)


def _several(text: str) -> tuple[str, ...]:
    """Return the values of a list with commas, each of which may stand in double quotes."""
    if not text.strip():
        return ()
    found, rest = [], text
    while True:
        field = _FIELD.match(rest)
        assert field is not None  # it matches any text
        found.append(_unquoted(field[0]))
        if field.end() == len(rest):
            return tuple(found)
        rest = rest[field.end() + 1 :]


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].replace('""', '"') if _QUOTED.fullmatch(text) else text


def _quoted(text: str, *, comma: bool) -> str:
    unsafe = text != text.strip() or text[:1] in {'"', "="} or (comma and re.search(r'[,"\r\n]', text))
    return _in_quotes(text) if unsafe or (comma and not text) else text


def _in_quotes(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _shown(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _listed(cells: Sequence[str]) -> str:
    return ", ".join(map(repr, cells[:_SHOWN])) + (", ..." if len(cells) > _SHOWN else "")


def _is_code(text: str) -> bool:
    """Return whether a number is written as names are: 007."""
    digits = text.strip().lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()


def _says(cell: Any, value: str, *, as_number: bool) -> bool:
    if cell is None or cell == "":
        return value == ""
    if isinstance(cell, str):
        if value == cell or value in cell.split(_VALUES_APART):
            return True
    elif isinstance(cell, bool):
        return str(cell).lower() == value.lower()
    return as_number and _same_number(cell, value)


def _same_number(cell: Any, value: str) -> bool:
    try:
        one, other = _comparable(cell, value)
    except (TypeError, ValueError):
        return str(cell) == value
    return bool(one == other) or (one != one and other != other)  # noqa: PLR0124 - not a number


def _comparable(cell: Any, value: str) -> tuple[Any, Any]:
    """Return both as numbers: whole ones exactly, for beyond 2**53 neighbours are one float."""
    if isinstance(cell, int) and _NUMBER.fullmatch(value):
        return Decimal(cell), Decimal(value.strip())
    return float(cell), float(value)
