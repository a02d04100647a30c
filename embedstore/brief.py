"""Short representations: what a person wants to see of an object that holds a store's worth of arrays, and sizes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from html import escape
from typing import Any


class Brief:
    """Shows a few facts in place of every field, in a terminal and in a notebook.

    A dataclass that is brief says ``repr=False``.
    """

    @abstractmethod
    def _facts(self) -> Mapping[str, Any]:
        """Return name -> fact, in order, each a few words or a number."""

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}={fact!r}" for name, fact in self._facts().items())
        return f"{type(self).__name__}({listed})"

    def _repr_html_(self) -> str:
        """Return a small table, for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(_in_words(fact))}</td></tr>"
            for name, fact in self._facts().items()
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"


def _in_words(fact: Any) -> str:
    if isinstance(fact, Mapping):
        return ", ".join(f"{name}: {_in_words(entry)}" for name, entry in fact.items())
    if isinstance(fact, list | tuple):
        return ", ".join(_in_words(entry) for entry in fact)
    return f"{fact:,}" if isinstance(fact, int) else str(fact)


def in_bytes(size: int) -> str:
    """Return a size in the largest decimal unit that leaves a digit before the point.

    Examples
    --------
    >>> in_bytes(640), in_bytes(131_072), in_bytes(19_425_000_000)
    ('640 bytes', '131.1 kB', '19.4 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"
