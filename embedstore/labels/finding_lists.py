"""Cells that list findings (``Mass|Nodule``, ``['mass', 'nodule']``) -> one yes or no per finding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError
from embedstore.labels.label_words import says_nothing_found
from embedstore.labels.states import MISSING, NO, YES

# What else may stand between findings, for a hint where the separator that was named is nowhere.
_SEPARATORS = ("|", ";", ",")
_RARE = ("|", ";")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_OPEN, _CLOSE = "[({", "])}"


@dataclass(frozen=True)
class FindingLists:
    """What a column of lists says.

    Parameters
    ----------
    findings
        Names of the findings, by alphabet; each is a target.
    states
        int8, (cells, findings): `YES`, `NO` or `MISSING`, for each different cell.
    respelled
        (spelling, what it was read as) -> number of cells, where two spellings differ by case or blanks only.
    contradictions
        Cells that say that nothing was found and name a finding; their states are `MISSING`.
    nothing_found
        For each different cell whether it says that nothing was found.
    empty
        For each different cell whether it is a list without an entry.
    """

    findings: tuple[str, ...]
    states: npt.NDArray[np.int8]
    respelled: Mapping[tuple[str, str], int]
    contradictions: tuple[str, ...]
    nothing_found: npt.NDArray[np.bool_]
    empty: npt.NDArray[np.bool_]


def read_finding_lists(
    cells: Sequence[str], counts: Sequence[int], separator: str, *, where: str
) -> FindingLists:
    """Split different cells of a column into findings.

    A cell in brackets is a list as Python, JSON or NumPy write it; any other is split at `separator`. Blanks around
    an entry and empty entries are dropped; entries that differ by case or blanks only are one finding, spelled as
    most often. An entry such as "No Finding" or "normal" says that every finding is absent and is no finding itself.

    Parameters
    ----------
    cells
        The different cells of the column that are not empty.
    counts
        How often each occurs.
    separator
        What stands between two findings.
    where
        The file and column, for messages.

    Raises
    ------
    DataError
        If a list is not closed or is not readable, no cell holds `separator` while some hold another one, or no
        finding is named.
    """
    entries = [_entries(cell, separator, where) for cell in cells]
    _check_separator(cells, separator, where)
    spelling, respelled = _one_spelling(entries, counts)
    findings = tuple(sorted(set(spelling.values()), key=lambda name: (name.casefold(), name)))
    if not findings:
        raise DataError(
            f"{where}: names no finding; found only {', '.join(map(repr, cells[:3])) or 'empty cells'}"
        )
    number = {name: at for at, name in enumerate(findings)}
    states = np.full((len(cells), len(findings)), MISSING, np.int8)
    nothing = np.zeros(len(cells), np.bool_)
    contradictions = []
    for row, parts in enumerate(entries):
        named = [number[spelling[_key(part)]] for part in parts if not says_nothing_found(part)]
        nothing[row] = len(named) < len(parts)
        if nothing[row] and named:
            contradictions.append(cells[row])
        elif parts:
            states[row] = NO
            states[row, named] = YES
    empty = np.array([not parts for parts in entries], np.bool_)
    return FindingLists(findings, states, respelled, tuple(contradictions), nothing, empty)


def looks_like_lists(cells: Sequence[str]) -> str | None:
    """Return the separator by which the cells of a column look like lists, or None.

    They do where all are in brackets, one holds a separator between labels that stand alone in other cells, or one
    holds a bar or semicolon, which are rare inside a label, beside a part that stands in another cell, too.
    """
    if cells and all(cell[:1] == "[" and cell[-1:] == "]" for cell in cells):
        return ","
    alone = set(cells)
    for separator in _SEPARATORS:
        if any(
            separator in cell and sum(part.strip() in alone for part in cell.split(separator)) > 1
            for cell in cells
        ):
            return separator
    for separator in _RARE:
        parts = [{part.strip() for part in cell.split(separator)} for cell in cells]
        shared = Counter(part for of_cell in parts for part in of_cell if part)
        if any(len(of_cell) > 1 and any(shared[part] > 1 for part in of_cell) for of_cell in parts):
            return separator
    return None


def _check_separator(cells: Sequence[str], separator: str, where: str) -> None:
    plain = [cell for cell in cells if not _in_brackets(cell)]
    if len(plain) < len(cells) or any(separator in cell for cell in plain):
        return
    for other in _SEPARATORS:
        held = [cell for cell in plain if other in cell]
        if held:
            raise DataError(
                f"{where}: no cell holds the separator {separator!r}, and {len(held):,} different ones hold {other!r}, "
                f"such as {held[0]!r}; `label_separator='{other}'` splits there"
            )


def _in_brackets(cell: str) -> bool:
    return cell[:1] in _OPEN and cell[-1:] == _CLOSE[_OPEN.find(cell[:1])]


def _entries(cell: str, separator: str, where: str) -> list[str]:
    text = cell.strip()
    if _in_brackets(text):
        parts = _of_list(text[1:-1], cell, where)
    elif text[:1] == "[":
        raise DataError(f"{where}: a list must end in ']'; found {cell[:80]!r}")
    else:
        parts = text.split(separator)
    return list(dict.fromkeys(" ".join(part.split()) for part in parts if part.strip()))


def _of_list(inside: str, cell: str, where: str) -> list[str]:
    """Return the entries of a list as Python, JSON and NumPy write it; nothing is evaluated."""
    if "'" not in inside and '"' not in inside:
        return inside.split(",")
    between = _QUOTED.sub("", inside)
    if between.replace(",", "").strip():
        raise DataError(
            f"{where}: the entries of a list must be quoted text with commas between; found {cell[:80]!r}"
        )
    texts = (_ESCAPE.sub(_unescaped, part[1:-1]) for part in _QUOTED.findall(inside))
    # JSON escapes a character beyond 16 bits as two halves.
    return [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else " " if found[3] in "nrt" else found[3]


def _one_spelling(
    entries: Sequence[Sequence[str]], counts: Sequence[int]
) -> tuple[dict[str, str], dict[tuple[str, str], int]]:
    """Return key -> the most frequent spelling, and how often others were read as that one."""
    found: dict[str, Counter[str]] = {}
    for parts, count in zip(entries, counts, strict=True):
        for part in parts:
            if not says_nothing_found(part):
                found.setdefault(_key(part), Counter())[part] += count
    spelling = {key: _most_frequent(names) for key, names in found.items()}
    respelled = {
        (name, spelling[key]): count
        for key, names in found.items()
        for name, count in names.items()
        if name != spelling[key]
    }
    return spelling, respelled


def _most_frequent(names: Counter[str]) -> str:
    return min(names, key=lambda name: (-names[name], name))


def _key(part: str) -> str:
    return part.casefold()
