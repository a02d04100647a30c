"""Rules for columns of labels: whatever spelling could split one class into several is mended or refused."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from decimal import Decimal

import pyarrow as pa

from embedstore.errors import DataError
from embedstore.tables.cell_rules import (
    CellRules,
    about,
    doubtful_words,
    drop_none,
    map_values,
    text_of,
    tidy,
)
from embedstore.tables.id_rules import LOOK_ALIKE
from embedstore.tables.remarks import Remark, counted, some_of
from embedstore.tables.rows import Rows

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NONE = "None"
_NO_AND_YES = (
    ("no", "yes"), ("0", "1"), ("false", "true"), ("negative", "positive"), ("n", "y"), ("f", "t"), ("neg", "pos"),
    ("nein", "ja"), ("n", "j"), ("non", "oui"), ("unchecked", "checked"),
)  # fmt: skip
# Numbers by which statistics programs and electronic case reports code "no answer", where grades are small.
_CODES = frozenset(("-9", "-99", "-999", "-9999", "99", "999", "9999"))
_LARGEST_GRADE = 20


def read_labels(rows: Rows, name: str, rules: CellRules) -> Rows:
    """Return the rows with a column of labels as text, each class in one spelling.

    Runs of blanks are one blank; numbers have one spelling (``1`` for ``1.0`` and ``1e0``); of labels that differ in
    case the most frequent spelling counts, and truth values are ``true`` and ``false``. Where every label says yes or
    no, the most frequent pair of words counts (``yes`` for ``y``, ``1`` for ``TRUE``).

    Raises
    ------
    DataError
        If labels may be one class or two (``1`` and ``01``, ``non-small`` and ``non small``), or a class or nothing
        (``None`` among words, ``unknown``, ``?``, ``999`` among grades).
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
    _refuse_doubtful(rows, name, counts, rules)
    spelled = _one_yes_and_no(_one_spelling(counts), counts)
    _refuse_alike(rows, name, Counter(spelled.values()))
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


def _one_yes_and_no(spelled: dict[str, str], counts: Counter[str]) -> dict[str, str]:
    """Return one spelling for yes and one for no, where every label is one of the two."""
    plain = {label.casefold() for label in spelled.values()}
    if not plain <= {word for pair in _NO_AND_YES for word in pair}:
        return spelled
    often = Counter[str]()
    for label, target in spelled.items():
        often[target] += counts[label]
    rows = {
        pair: sum(count for label, count in often.items() if label.casefold() in pair) for pair in _NO_AND_YES
    }
    pair = max(_NO_AND_YES, key=rows.__getitem__)
    written = {label.casefold(): label for label in often}
    own = [written.get(word, word) for word in pair]
    place = {word: number for pair in _NO_AND_YES for number, word in enumerate(pair)}
    return {label: own[place[target.casefold()]] for label, target in spelled.items()}


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


def _refuse_doubtful(rows: Rows, name: str, counts: Counter[str], rules: CellRules) -> None:
    """Refuse what would be a class of its own, and probably says that there is no label."""
    said = doubtful_words(name, counts, rules)
    signs = [label for label in counts if not any(map(str.isalnum, label))]
    if not said and signs and len(signs) < len(counts) and not any("+" in label for label in signs):
        said = " and ".join(f"{label!r} ({counted(counts[label], 'row')})" for label in signs)
    if not said and (code := _code(counts)):
        said = f"{code!r} ({counted(counts[code], 'row')}) beside small numbers"
    if said:
        # The option speaks of every column, and 99 may well be an age.
        word = said.split("'")[1]
        none = "Empty these cells" if word in _CODES else f"Name it with `missing` {word!r}"
        raise DataError(
            f"{rows.path}: column {name!r} holds {said}: a class, or no label? {none} if there is no label, or take "
            f"the column as it is with `as_written` {name}."
        )


def _code(counts: Counter[str]) -> str | None:
    """Return a number that codes a missing label, where all others are small grades."""
    codes = {label: number for label in counts if (number := plain_number(label)) in _CODES}
    others = [plain_number(label) for label in counts if label not in codes]
    if not codes or len(others) < 2 or any(number is None for number in others):
        return None
    small = all(-1 <= float(number) <= _LARGEST_GRADE for number in others if number is not None)
    return min(codes) if small else None


def _loose(label: str) -> str:
    """Return a label without what may be a typist's: accents, look-alike letters, hyphens, signs at the end, zeros."""
    if plain_number(label) is not None:
        return re.sub(r"^0+(\d)", r"\1", label)
    letters = "".join(
        c for c in unicodedata.normalize("NFKD", label.casefold()) if not unicodedata.combining(c)
    ).translate(LOOK_ALIKE)
    return re.sub(r"(?<=\w)[\s_\-\u2010-\u2014\u2212]+(?=\w)", " ", letters.replace("_", " ")).rstrip(
        ".,;:! "
    )


def _refuse_alike(rows: Rows, name: str, labels: Counter[str]) -> None:
    by_number: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        by_number[_loose(label)].append(label)
    for group in by_number.values():
        if len(group) > 1:
            raise DataError(
                f"{rows.path}: column {name!r} holds labels that may be one class: "
                f"{' and '.join(map(repr, sorted(group)))}. Write them alike, or take them as they are by `as_written` "
                f"{name}."
            )
