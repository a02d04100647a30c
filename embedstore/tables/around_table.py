"""What programs and people write around a table of text: titles, comments, rulers, totals, the number of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_MOST_LINES = 200  # before a header
_SEPARATORS = b",;\t|"
_VALUE = re.compile(rb'"?[+-]?[0-9][0-9.]*"?|.*\.[A-Za-z0-9]{2,5}"?')  # a number, or the name of a file
_RULER = re.compile(r"[\s+:|]*[-=][\s+:|=-]*")
_ROW_COUNT = re.compile(
    r"\(?\s*[0-9][0-9.,]*\s+(rows?|records?|lines?|zeilen?|datens\S+|lignes?|filas?)\b.*", re.IGNORECASE
)
_TOTALS = frozenset(("total", "totals", "sum", "grand total", "gesamt", "summe", "gesamtsumme", "insgesamt"))


def lines_before_header(content: bytes) -> list[bytes]:
    r"""Return the lines that stand before the header: titles, comments (``# ...``), rulers and empty ones.

    A line is a title where it holds one cell and the lines below hold several; a line that begins with ``#`` is the
    header where as many cells stand below, and one of them is a number or the name of a file.

    Parameters
    ----------
    content
        The file as UTF-8.

    Examples
    --------
    >>> lines_before_header(b"Findings\\n# of 2026\\npath,label\\na.png,1\\n")
    [b'Findings\\n', b'# of 2026\\n']
    """
    lines = list(islice(_lines(content), _MOST_LINES))
    for number, line in enumerate(lines):
        below = [text for text in lines[number + 1 :] if text.strip()]
        text = line.strip()
        if text and not _is_ruler_line(text) and not _is_comment(text, below) and not _is_title(text, below):
            return lines[:number]
    return []


def is_ruler(cells: Sequence[str]) -> bool:
    """Whether a row draws a line, as ``-----+-----`` or ``|---|:--|``."""
    given = [cell for cell in cells if cell.strip()]
    drawn = any("---" in cell or "===" in cell for cell in given)
    return drawn and all(_RULER.fullmatch(cell) for cell in given)


def is_note(cells: Sequence[str]) -> bool:
    """Whether a row of fewer cells than the header says something about the table: ``# ...``, ``(12 rows)``."""
    given = [cell.strip() for cell in cells if cell.strip()]
    if not given:
        return True
    return given[0].startswith("#") or (len(given) == 1 and bool(_ROW_COUNT.fullmatch(given[0])))


def is_total(cells: Sequence[str]) -> bool:
    """Whether a last row sums up the others."""
    return len(cells) > 1 and cells[0].strip(" :").casefold() in _TOTALS


def _lines(content: bytes) -> Iterator[bytes]:
    for found in _LINE.finditer(content):
        if found[0]:
            yield found[0]


def _is_ruler_line(text: bytes) -> bool:
    return is_ruler([text.decode("utf-8", "replace").replace(",", " ").replace(";", " ")])


def _is_comment(text: bytes, below: Sequence[bytes]) -> bool:
    if not text.startswith(b"#"):
        return False
    below = [line for line in below if not line.startswith(b"#")][:1]
    separator = _shared_separator([text, *below])
    if separator is None:
        return True
    named = text[1:].split(separator)[0]
    return bool(named.strip()) and not any(
        _VALUE.fullmatch(cell.strip()) for cell in below[0].split(separator)
    )


def _is_title(text: bytes, below: Sequence[bytes]) -> bool:
    if any(separator in text for separator in _SEPARATORS):
        return False
    rows = [line for line in below if any(separator in line for separator in _SEPARATORS)]
    return len(below) > 1 and rows[:2] != [] and _shared_separator(rows[:2]) is not None


def _shared_separator(lines: Sequence[bytes]) -> bytes | None:
    """Return the separator that stands equally often in two lines, or None."""
    if len(lines) < 2:
        return None
    for separator in (b"\t", b";", b"|", b","):
        if lines[0].count(separator) == lines[1].count(separator) > 0:
            return separator
    return None
