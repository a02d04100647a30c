"""What was guessed, normalised or left out while a table was read, in words and with counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SHOWN = 3


@dataclass(frozen=True)
class Remark:
    """One thing that a person should know about how a table was read.

    Parameters
    ----------
    subject
        What it is about, as the summary's key: ``table``, ``paths`` or ``column label``.
    words
        What was done, with its count.
    """

    subject: str
    words: str


def describe_remarks(remarks: Iterable[Remark]) -> dict[str, str]:
    """Return subject -> all that is said about it, in order."""
    said: dict[str, list[str]] = {}
    for remark in remarks:
        said.setdefault(remark.subject, []).append(remark.words)
    return {subject: "; ".join(dict.fromkeys(words)) for subject, words in said.items()}


def some_of(values: Sequence[object], *, shown: int = _SHOWN) -> str:
    """Return the first few values, quoted, and how many more there are.

    Examples
    --------
    >>> some_of(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    words = ", ".join(repr(value) for value in values[:shown])
    more = len(values) - shown
    return f"{words} and {more:,} more" if more > 0 else words


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is one.

    Examples
    --------
    >>> counted(1, "value"), counted(1200, "value")
    ('1 value', '1,200 values')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
