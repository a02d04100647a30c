"""Bytes of a text file -> UTF-8, by what the bytes themselves say of their encoding."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from pathlib import Path

import numpy as np

from embedstore.errors import DataError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NAMES = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "utf-32": "UTF-32"}
_LOOKED_AT = 4096
_UTF8_FIRST = 0xC3
# Letters beyond ASCII that UTF-8 writes in two to four bytes: in a file of another encoding they are all but absent.
_UTF8_LETTER = re.compile(
    rb"[\xc3-\xf4](?:(?<=[\xc3-\xdf])[\x80-\xbf]|(?<=[\xe0-\xef])[\x80-\xbf]{2}|(?<=[\xf0-\xf4])[\x80-\xbf]{3})"
)

_KINDS = {
    "Parquet": re.compile(rb"PAR1"),
    "JSON": re.compile(rb'(\[\s*)?\{\s*["}]|\[\s*[\["]'),
    "HTML or XML": re.compile(rb"<(!doctype|html|table|\?xml)", re.IGNORECASE),
    "a spreadsheet or an archive": re.compile(rb"PK\x03\x04|\xd0\xcf\x11\xe0"),
    "Arrow (Feather)": re.compile(rb"ARROW1"),
    "an SQLite database": re.compile(rb"SQLite format 3"),
}


def kind_of_content(path: Path) -> str | None:
    """Return what a file holds by its first bytes, or None where these may be any text.

    That is ``"Parquet"``, ``"JSON"``, ``"HTML or XML"``, ``"a spreadsheet or an archive"``, ``"Arrow (Feather)"``
    or ``"an SQLite database"``.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT)
    if head[:2] == b"\x1f\x8b":
        head = zlib.decompressobj(wbits=31).decompress(head, _LOOKED_AT)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for kind, begins in _KINDS.items():
        if begins.match(text):
            return kind
    return None


def read_text_file(path: Path) -> tuple[bytes, str]:
    """Return a text file as UTF-8 without byte order mark, and its encoding in words; ``""`` for UTF-8.

    Raises
    ------
    DataError
        If the bytes are text in none of UTF-8, UTF-16, UTF-32 and Windows-1252, or another kind of file.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be unpacked: {error}; copy it again") from error
    if content[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{path}: is a spreadsheet or an archive, not text; save the sheet as CSV (UTF-8)")
    encoding = _encoding_of(content)
    if encoding == "utf-8":
        content = content.removeprefix(codecs.BOM_UTF8)
        fault = _first_fault(content)
        if fault is None:
            return content, ""
        encoding = _single_byte(path, content, fault)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: cannot be read as text: neither UTF-8 nor {_NAMES.get(encoding, 'Windows-1252')} ({error.reason} "
            f"at byte {error.start:,}). Save it as UTF-8."
        ) from error
    return text.lstrip("\ufeff").encode(), _NAMES.get(encoding, "Windows-1252")


def _encoding_of(content: bytes) -> str:
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return encoding
    head = content[: _LOOKED_AT // 2 * 2]
    if len(head) >= 4:
        # Text in Latin letters has a zero in every second byte; the side tells the byte order.
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) > len(head) // 4 and min(even, odd) < max(even, odd) // 4:
            return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def _first_fault(content: bytes) -> int | None:
    if content.isascii():
        return None
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


def _has_utf8_letter(content: bytes) -> bool:
    octets = np.frombuffer(content, np.uint8)
    first = np.flatnonzero(octets[:-1] >= _UTF8_FIRST)
    first = first[octets[first + 1] & 0xC0 == 0x80]
    return any(_UTF8_LETTER.match(content, int(place)) for place in first)


def _single_byte(path: Path, content: bytes, fault: int) -> str:
    if _has_utf8_letter(content):
        line = content[:fault].count(b"\n") + 1
        raise DataError(
            f"{path}: line {line}: byte {content[fault]:#04x} is not UTF-8, while other letters of the file are; the "
            "file mixes encodings or was damaged. Save it as UTF-8."
        )
    return "cp1252"
