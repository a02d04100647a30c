"""Delimited text (CSV and its relatives) -> a header and columns of text, whatever program wrote it.

Arrow reads what is regular; what is not (rows of other lengths, blanks before quotes) is read row by row, which is slow
and knows its lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from embedstore.errors import DataError
from embedstore.tables.around_table import is_note, is_ruler, is_total, lines_before_header
from embedstore.tables.encodings import read_text_file
from embedstore.tables.remarks import counted, some_of

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SAMPLE_ROWS = 50
_SAMPLE_CHARACTERS = 1 << 18
_SHOWN_TITLE = 60
# Excel takes the separator from such a first line, and shows no row for it.
_SEP_LINE = re.compile(rb'\A\s*"?sep=(.)"?\s*(?:\r\n|\n|\r)', re.IGNORECASE)
_BLANK_BESIDE_QUOTE = re.compile(r'(?:^|[,;\t|])[ ]+"|"[ ]+(?:[,;\t|]|$)', re.MULTILINE)
_LARGEST_BLOCK = (1 << 31) - 1
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Delimited:
    """The content of a delimited file.

    Parameters
    ----------
    header
        The first row, as written.
    columns
        One array of text for each name of the header; nothing is missing yet, an empty cell is ``""``.
    words
        What was guessed about the file.
    path
        The file.
    separator
        Between cells.
    skipped
        The UTF-8 text before the header: a line that names the separator, titles, comments.
    left_out
        Numbers of the rows of the file that are no rows of the table, from 0: rulers, comments, totals.
    """

    header: tuple[str, ...]
    columns: tuple[pa.ChunkedArray, ...]
    words: tuple[str, ...]
    path: Path
    separator: str
    skipped: bytes
    left_out: tuple[int, ...] = ()

    @property
    def first_line(self) -> int:
        """Line of the file on which the header stands, empty lines apart."""
        return 1 + len(_LINE_END.findall(self.skipped))

    def place(self, row: int) -> str:
        """Return the line on which a row begins; the file is read up to it again."""
        content, _ = read_text_file(self.path)
        row = _number_in_file(row, self.left_out)
        for number, (line, _) in enumerate(_rows(content[len(self.skipped) :], self.separator, strict=False)):
            if number == row + 1:
                return f"line {line + self.first_line - 1}"
        return f"row {row}"


def read_delimited(path: Path) -> Delimited:
    """Read a file of separated cells.

    Raises
    ------
    DataError
        If it is empty or no text, or a row has another number of cells than the header; with the line.
    """
    content, encoding = read_text_file(path)
    words = [f"{encoding} text"] if encoding else []
    named = _SEP_LINE.match(content)
    skipped = named[0] if named else b""
    before = lines_before_header(content[len(skipped) :])
    skipped += b"".join(before)
    content = content[len(skipped) :]
    if titles := [line.decode("utf-8", "replace").strip()[:_SHOWN_TITLE] for line in before if line.strip()]:
        words.append(f"{counted(len(titles), 'line')} before the header left out ({some_of(titles)})")
    sample = _sample(content)
    separator = named[1].decode("utf-8", "replace") if named else _separator_of(sample, path.suffix.lower())
    if separator != ",":
        words.append(f"separated by {_SEPARATORS.get(separator, repr(separator))}")
    header = next((cells for _, cells in _rows(content, separator, strict=False)), None)
    if header is None:
        raise DataError(f"{path}: the table is empty; its first line must name the columns")
    found = Delimited(tuple(header), (), (), path, separator, skipped)
    columns = None if _BLANK_BESIDE_QUOTE.search(sample) else _regular(content, separator, len(header))
    left_out: tuple[int, ...] = ()
    if columns is None:
        columns, left_out, more = _irregular(content, found)
        words += more
    columns, left_out, more = _without_ruler_and_total(columns, left_out)
    return replace(found, columns=tuple(columns), words=(*words, *more), left_out=left_out)


def _sample(content: bytes) -> str:
    text = content[:_SAMPLE_CHARACTERS].decode("utf-8", "ignore")
    whole = len(content) <= _SAMPLE_CHARACTERS
    return text if whole else text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text


def _separator_of(sample: str, suffix: str) -> str:
    """Choose the separator that gives every row of the sample as many cells as the header, and the most."""
    best, most = ",", (False, 1)
    first = ("\t",) if suffix in (".tsv", ".tab") else ()
    for separator in dict.fromkeys((*first, *_SEPARATORS)):
        rows = []
        try:
            for _, cells in _rows(sample.encode(), separator, strict=False):
                if len(cells) == 1 and (is_ruler(cells) or is_note(cells)):
                    continue
                rows.append(len(cells))
                if len(rows) > _SAMPLE_ROWS:
                    break
        except csv.Error:
            continue
        header = rows[0] if rows else 0
        # The last row of a cut sample may be cut itself; a table may lack or add a cell at the end of each row.
        even = len({abs(count - header) for count in rows[:-1] or rows} - {0, 1}) == 0
        if header > 1 and (even, header) > most:
            best, most = separator, (even, header)
    return best


def _rows(content: bytes, separator: str, *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty with the line on which it begins, from 1."""
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
    limit = csv.field_size_limit(_LARGEST_BLOCK)
    try:
        reader = csv.reader(_universal(text), delimiter=separator, strict=strict, skipinitialspace=True)
        start = 1
        for cells in reader:
            if cells and not (len(cells) == 1 and not cells[0].strip()):
                yield start, cells
            start = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _universal(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield lines that end in LF, CRLF or CR, ends included; a CR before CRLF is part of the end."""
    for line in text:
        yield line if not line.endswith("\r\r\n") else line[:-3] + "\r\n"


def _regular(content: bytes, separator: str, width: int) -> list[pa.ChunkedArray] | None:
    """Read with Arrow; None where a row has another number of cells, or a quote is never closed."""
    names = [str(number) for number in range(width)]
    try:
        table = pa_csv.read_csv(
            pa.py_buffer(content),
            parse_options=pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            read_options=pa_csv.ReadOptions(
                column_names=names, block_size=min(max(len(content), 1 << 20), _LARGEST_BLOCK)
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    last = table.column(width - 1)[-1].as_py() if table.num_rows else ""
    # Arrow takes the rest of the file for the cell of a quote that is never closed.
    if "\n" in last and content.count(b'"') % 2:
        return None
    return list(table.slice(1).columns)


def _irregular(content: bytes, found: Delimited) -> tuple[list[pa.ChunkedArray], tuple[int, ...], list[str]]:
    (_, header), *numbered = _numbered_rows(content, found)
    width, words = len(header), []
    notes = [
        row
        for row, (_, cells) in enumerate(numbered)
        if len(cells) != width and (is_ruler(cells) or (len(cells) < width and is_note(cells)))
    ]
    if notes:
        said = some_of([_joined(numbered[row][1]) for row in notes])
        words.append(f"{counted(len(notes), 'row')} beside the table left out ({said})")
        apart = set(notes)
        numbered = [entry for row, entry in enumerate(numbered) if row not in apart]
    rows = [cells for _, cells in numbered]
    one_more = bool(rows) and all(len(cells) == width + 1 for cells in rows)
    if one_more and any(cells[-1] for cells in rows) and _count_up([cells[0] for cells in rows]):
        words.append("row numbers that have no name in the header were left out")
        rows = [cells[1:] for cells in rows]
    longer = 0
    for row, cells in enumerate(rows):
        if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
            rows[row], longer = cells[:width], longer + 1
        elif len(cells) != width:
            raise DataError(
                f"{found.path}: line {numbered[row][0] + found.first_line - 1}: {width} columns expected "
                f"({', '.join(header)}); found {len(cells)}. Quote cells that hold "
                f"{_SEPARATORS.get(found.separator, repr(found.separator))}."
            )
    if longer:
        words.append(f"{counted(longer, 'row')} with empty cells behind the last column")
    columns = [pa.array([cells[index] for cells in rows], pa.string()) for index in range(width)]
    return [pa.chunked_array([column]) for column in columns], tuple(notes), words


def _without_ruler_and_total(
    columns: list[pa.ChunkedArray], left_out: tuple[int, ...]
) -> tuple[list[pa.ChunkedArray], tuple[int, ...], list[str]]:
    """Leave out a ruler below the header, and a last row that sums up."""
    words = []
    if len(columns[0]) and is_ruler(first := [str(column[0].as_py()) for column in columns]):
        words.append(f"a ruler below the header left out ({_joined(first)})")
        columns = [column.slice(1) for column in columns]
        left_out = tuple(sorted((*left_out, _number_in_file(0, left_out))))
    count = len(columns[0])
    if count > 1 and is_total(last := [str(column[-1].as_py()) for column in columns]):
        words.append(f"a last row of totals left out ({_joined(last)})")
        columns = [column.slice(0, count - 1) for column in columns]
    return columns, left_out, words


def _number_in_file(row: int, left_out: tuple[int, ...]) -> int:
    """Return the number of a row among all rows of the file below the header."""
    for number in left_out:
        row += number <= row
    return row


def _joined(cells: list[str]) -> str:
    return " ".join(cell.strip() for cell in cells)[:_SHOWN_TITLE]


def _numbered_rows(content: bytes, found: Delimited) -> list[tuple[int, list[str]]]:
    try:
        return list(_rows(content, found.separator))
    except csv.Error as error:
        rows = list(_rows(content, found.separator, strict=False))
        # A quote that is never closed takes the rest of the file into its cell.
        if content.count(b'"') % 2 or "expected after" not in str(error):
            raise DataError(f"{found.path}: cannot be read as csv: {error}") from error
        return rows


def _count_up(cells: list[str]) -> bool:
    """Whether cells are 1, 2, 3, ... or 0, 1, 2, ..."""
    return any(cells == [str(number) for number in range(first, first + len(cells))] for first in (0, 1))
