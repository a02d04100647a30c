"""Rules for columns of labels: whatever spelling could split one class into several is mended or refused."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from decimal import Decimal

import pyarrow as pa

from embedstore.errors import DataError
from embedstore.tables.cell_rules import CellRules, about, drop_none, map_values, text_of, tidy
from embedstore.tables.remarks import Remark, counted, some_of
from embedstore.tables.rows import Rows

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NONE = "None"


def read_labels(rows: Rows, name: str, rules: CellRules) -> Rows:
    """Return the rows with a column of labels as text, each class in one spelling.

    Runs of blanks are one blank; numbers have one spelling (``1`` for ``1.0`` and ``1e0``); of labels that differ in
    case the most frequent spelling counts, and truth values are ``true`` and ``false``.

    Raises
    ------
    DataError
        If labels may be one class or two (``1`` and ``01``), or a class or nothing (``None`` among words).
    """
    cells = rows.column(name)
    if not pa.types.is_string(cells.type):
        return rows.with_column(name, text_of(cells))
    if name in rules.as_written:
        return rows
    cells, remarks = tidy(name, cells, rules)
    cells, more = drop_none(name, cells, rules)
    counts = Counter({entry["values"]: entry["counts"] for entry in cells.value_counts().to_pylist()})
    del counts[None]
    _refuse_none(rows, name, counts)
    spelled = _one_spelling(counts)
    _refuse_leading_zeros(rows, name, Counter(spelled.values()))
    changed = {label: target for label, target in spelled.items() if label != target}
    if changed:
        cells = map_values(cells, lambda label: spelled[str(label)])
    return rows.with_column(name, cells, *remarks, *more, *_said(name, counts, changed))


def _one_spelling(counts: Counter[str]) -> dict[str, str]:
    """Return for each label how its class is written."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        plain = " ".join(label.split())
        groups[plain_number(plain) or plain.casefold()].append(label)
    spelled: dict[str, str] = {}
    for key, labels in groups.items():
        often = Counter[str]()
        for label in labels:
            often[" ".join(label.split())] += counts[label]
        most = min(often, key=lambda label: (-often[label], label))
        if plain_number(most) or key in ("true", "false"):
            most = key
        spelled |= dict.fromkeys(labels, most)
    return spelled


def plain_number(text: str) -> str | None:
    """Return the one spelling of a number, or None for what is none; leading zeros are kept.

    Examples
    --------
    >>> plain_number("1.0"), plain_number("1e0"), plain_number("0.50"), plain_number("01"), plain_number("one")
    ('1', '1', '0.5', '01', None)
    """
    if not _NUMBER.fullmatch(text):
        return None
    zeros = re.match(r"[+-]?(0*)\d", text)
    number = Decimal(text)
    if not math.isfinite(number) or abs(number.adjusted()) > 30:
        return None
    if number == number.to_integral_value():
        whole = str(int(number))
        return (zeros[1] if zeros else "") + whole if zeros and int(number) > 0 else whole
    return format(number.normalize(), "f")


def _said(name: str, counts: Counter[str], changed: dict[str, str]) -> tuple[Remark, ...]:
    if not changed:
        return ()
    touched = sum(counts[label] for label in changed)
    pairs = [f"{label} as {target}" for label, target in sorted(changed.items())]
    return (
        Remark(
            about(name), f"{counted(touched, 'value')} spelled otherwise read as one class: {some_of(pairs)}"
        ),
    )


def _refuse_none(rows: Rows, name: str, counts: Counter[str]) -> None:
    if _NONE in counts:
        others = sorted(set(counts) - {_NONE})
        raise DataError(
            f"{rows.path}: column {name!r} holds {_NONE!r} ({counted(counts[_NONE], 'row')}) beside {some_of(others)}: "
            f"a class, or no label? Name it with `missing` {_NONE} if there is no label, or take the column as it is "
            f"with `as_written` {name}."
        )


def _refuse_leading_zeros(rows: Rows, name: str, labels: Counter[str]) -> None:
    by_number: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        by_number[re.sub(r"^0+(\d)", r"\1", label)].append(label)
    for group in by_number.values():
        if len(group) > 1:
            raise DataError(
                f"{rows.path}: column {name!r} holds labels that may be one class, spelled differently: "
                f"{' and '.join(map(repr, sorted(group)))}. Write them alike, or keep them apart by `as_written` {name}."
            )
