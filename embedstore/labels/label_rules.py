"""What is asked of a table's label columns, read from options and settings."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from embedstore.errors import UsageError
from embedstore.task import require_unit, unit_in_words, unit_key

UNCERTAIN_WAYS = ("missing", "positive", "negative", "class")
EMPTY_WAYS = ("missing", "negative")

# Lists of NAME=VALUE texts, or a mapping as a settings file has it.
Pairs = str | Sequence[str] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """Which columns become which tasks.

    Parameters
    ----------
    label
        Columns that become a task each.
    separators
        Label column -> what stands between the findings in its cells; the key ``""`` speaks of all label columns.
    groups
        Name of a task -> columns of 0, 1, -1 or nothing that are its targets; ``FIRST..LAST`` stands for all columns
        from one to another.
    uncertain
        What -1 is: a ``missing`` label, ``positive``, ``negative``, or a ``class`` of its own; None is ``missing``
        where 0 and 1 occur too.
    empty
        What an empty cell of a finding is: a ``missing`` label or ``negative``.
    positive
        Positive classes: ``CLASS``, or ``COLUMN=CLASS`` for one label column.
    unit
        What carries a label, as `embedstore.task.Task.unit`; None for the study where every row has one.
    """

    label: tuple[str, ...] = ()
    separators: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    uncertain: str | None = None
    empty: str = "missing"
    positive: tuple[str, ...] = ()
    unit: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is a label."""
        named = (*self.label, *(column for columns in self.groups.values() for column in columns))
        return tuple(dict.fromkeys(named))

    @property
    def lists(self) -> tuple[str, ...]:
        """Label columns whose cells are lists."""
        return tuple(column for column in self.label if self.separator_of(column) is not None)

    def with_columns(self, columns: Sequence[str]) -> LabelRules:
        """Return the rules with ``FIRST..LAST`` written out.

        Parameters
        ----------
        columns
            Columns of the table, in its order.

        Raises
        ------
        UsageError
            If LAST comes before FIRST, or a group then names a column twice.
        """
        groups = {}
        for name, wanted in self.groups.items():
            groups[name] = tuple(column for text in wanted for column in _range(text, columns))
            _require_different(f"label_group {name}", groups[name])
        return replace(self, groups=groups)

    def separator_of(self, column: str) -> str | None:
        """Return what stands between the findings in a label column; None for one label a cell."""
        return self.separators.get(column, self.separators.get(""))


def label_rules(
    *,
    label: str | Sequence[str] = (),
    label_separator: Pairs = (),
    label_group: Pairs = (),
    uncertain: str | None = None,
    empty: str = "missing",
    positive: str | Sequence[str] = (),
    unit: str | None = None,
) -> LabelRules:
    """Read the rules from values as options and settings give them.

    Parameters
    ----------
    label, uncertain, empty, positive, unit
        As `LabelRules`; one text stands for a list of one.
    label_separator
        ``SEPARATOR`` for all label columns, ``COLUMN=SEPARATOR`` for one, or a mapping.
    label_group
        ``NAME=COLUMN,COLUMN,...``, or a mapping of lists; ``FIRST..LAST`` are columns, too. A column
        whose name holds a comma stands in double quotes.

    Raises
    ------
    UsageError
        If a value is none of these, or a column or name is given twice.
    """
    columns = (label,) if isinstance(label, str) else tuple(label)
    _require_different("label", columns)
    rules = LabelRules(
        label=columns,
        separators=_separators(label_separator, columns),
        groups=_groups(label_group),
        uncertain=uncertain,
        empty=empty,
        positive=(positive,) if isinstance(positive, str) else tuple(map(str, positive)),
        unit=None if unit is None else unit_in_words(unit_key(unit)),
    )
    for name, given, allowed in (
        ("uncertain", uncertain, (None, *UNCERTAIN_WAYS)),
        ("empty", empty, EMPTY_WAYS),
    ):
        if given not in allowed:
            ways = ", ".join(way for way in allowed if way)
            raise UsageError(f"`{name}` must be one of {ways}; found {given!r}")
    if rules.unit is not None:
        require_unit(rules.unit, where="`unit`")
    if rules.separators and not columns:
        raise UsageError("`label_separator` splits the cells of `label`; name that column")
    if rules.positive and not columns:
        raise UsageError("`positive` is a class of `label`; name that column")
    return rules


def _separators(given: Pairs, columns: Sequence[str]) -> dict[str, str]:
    pairs = _pairs(given, "label_separator", "SEPARATOR or COLUMN=SEPARATOR")
    found: dict[str, str] = {}
    for name, value in pairs:
        # A bare separator may hold an equals sign itself.
        column, separator = (
            (name, str(value)) if name in columns else ("", f"{name}={value}" if name else value)
        )
        if isinstance(given, Mapping) and name not in columns:
            raise UsageError(
                f"`label_separator`: {name!r} is no label column ({', '.join(columns) or 'none'})"
            )
        if not isinstance(separator, str) or not separator:
            raise UsageError(f"`label_separator` must be text that is not empty; found {separator!r}")
        if column in found:
            raise UsageError(f"`label_separator` is given twice for {column or 'all label columns'}")
        found[column] = separator if separator.strip() == "" else separator.strip()
    return found


def _groups(given: Pairs) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in _pairs(given, "label_group", "NAME=COLUMN,COLUMN,..."):
        columns = (
            next(csv.reader([value], skipinitialspace=True), []) if isinstance(value, str) else list(value)
        )
        if not name or not columns or not all(columns):
            raise UsageError(f"`label_group` takes NAME=COLUMN,COLUMN,...; found {name}={value}")
        if name in found:
            raise UsageError(f"`label_group` {name} is given twice; give each group a name of its own")
        _require_different(f"label_group {name}", columns)
        found[name] = tuple(columns)
    return found


def _range(text: str, columns: Sequence[str]) -> Sequence[str]:
    first, dots, last = text.partition("..")
    if text in columns or not dots or first not in columns or last not in columns:
        return (text,)
    chosen = columns[columns.index(first) : columns.index(last) + 1]
    if not chosen:
        raise UsageError(
            f"`label_group`: {last!r} comes before {first!r} in the table; write {last}..{first}"
        )
    return chosen


def _pairs(given: Pairs, option: str, form: str) -> list[tuple[str, str | Sequence[str]]]:
    if isinstance(given, Mapping):
        return list(given.items())
    pairs: list[tuple[str, str | Sequence[str]]] = []
    for text in (given,) if isinstance(given, str) else given:
        if not isinstance(text, str):
            raise UsageError(f"`{option}` takes {form}; found {text!r}")
        name, equals, value = text.partition("=")
        pairs.append((name.strip(), value) if equals else ("", text))
    return pairs


def _require_different(what: str, columns: Sequence[str]) -> None:
    doubled = [column for column in columns if columns.count(column) > 1]
    if doubled:
        raise UsageError(f"`{what}` names the column {doubled[0]!r} twice; name each once")
