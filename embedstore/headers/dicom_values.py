"""Values of a DICOM data set from their bytes, so that a wrong one is None and never an exception."""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Sequence
from contextlib import suppress

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset

_CHARACTER_SET = 0x00080005
_RESET_BY = {0x09, 0x0A, 0x0C, 0x0D, 0x5C}  # PS3.5, 6.1.2.5.3
_BINARY_TAGS = (0x00280010, 0x00280011, 0x00280101)


class Values:
    """Reads a data set by tag.

    pydicom's own conversion accepts more, but raises, warns and keeps free text.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def raw(self, tag: int) -> bytes:
        """Return the bytes without padding; empty where absent."""
        element = self._dataset.get_item(tag) if tag in self._dataset else None
        found = getattr(element, "value", None)
        return found.strip(b" \0") if isinstance(found, bytes) else b""

    def text(self, tag: int) -> str | None:
        """Return the value as ASCII text."""
        return self.raw(tag).decode("ascii", "replace") or None

    def identifier(self, tag: int) -> str | None:
        """Return an identifier as text in the character set that the data set states.

        Bytes that are no text in it are read as Latin-1, which knows every byte: two identifiers never become one.
        """
        found = self.raw(tag)
        return _decoded(found, self.raw(_CHARACTER_SET)).strip() or None

    def code(self, tag: int) -> str | None:
        """Return the first code: 16 capitals, digits, blanks or underscores (DICOM PS3.5, 6.2)."""
        first = (self.text(tag) or "").partition("\\")[0].strip().upper()
        return first if re.fullmatch(r"[A-Z0-9 _]{1,16}", first) else None

    def codes(self, tag: int, count: int) -> tuple[str, ...]:
        """Return the first `count` codes, up to the first that is none."""
        found = []
        for part in (self.text(tag) or "").split("\\")[:count]:
            code = part.strip().upper()
            if not re.fullmatch(r"[A-Z0-9 _]{1,16}", code):
                break
            found.append(code)
        return tuple(found)

    def label(self, tag: int) -> str | None:
        """Return a line of at most 64 printable ASCII characters."""
        found = (self.text(tag) or "").strip()
        return found if re.fullmatch(r"[ -\[\]-~]{1,64}", found) else None

    def decimals(self, tag: int, count: int) -> tuple[float, ...] | None:
        """Return exactly `count` finite numbers of a decimal string."""
        parts = self.raw(tag).split(b"\\")
        if len(parts) != count:
            return None
        try:
            numbers = tuple(float(part) for part in parts)
        except ValueError:
            return None
        return numbers if all(math.isfinite(number) for number in numbers) else None

    def decimal(self, tag: int) -> float | None:
        """Return the one finite number of a decimal string."""
        numbers = self.decimals(tag, 1)
        return numbers[0] if numbers else None

    def integer(self, tag: int) -> int | None:
        """Return an integer string, or an unsigned short where the attribute is binary."""
        if tag in _BINARY_TAGS:
            return next(iter(self.shorts(tag)), None)
        digits = self.raw(tag)
        return int(digits) if re.fullmatch(rb"[+-]?\d{1,12}", digits) else None

    def shorts(self, tag: int) -> tuple[int, ...]:
        """Return the unsigned 16-bit numbers of a binary attribute."""
        return self._numbers(tag, "H")

    def longs(self, tag: int) -> tuple[int, ...]:
        """Return the unsigned 32-bit numbers of a binary attribute."""
        return self._numbers(tag, "I")

    def _numbers(self, tag: int, kind: str) -> tuple[int, ...]:
        element = self._dataset.get_item(tag) if tag in self._dataset else None
        found = getattr(element, "value", None)
        if not isinstance(found, bytes):
            return ()
        order = "<" if getattr(element, "is_little_endian", True) else ">"
        count = len(found) // struct.calcsize(kind)
        return struct.unpack_from(f"{order}{count}{kind}", found)

    def items(self, tag: int) -> Sequence[Dataset]:
        """Return the items of a sequence; none where it is absent or no sequence."""
        found = self._dataset[tag].value if tag in self._dataset else None
        return found if isinstance(found, Sequence) and not isinstance(found, str | bytes) else ()

    def item(self, tag: int) -> Values | None:
        """Return the first item of a sequence."""
        items = self.items(tag)
        return Values(items[0]) if len(items) and isinstance(items[0], Dataset) else None


def _decoded(value: bytes, character_set: bytes) -> str:
    """Return text in the character set (0008,0005); without one, UTF-8 is tried before Latin-1."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if not character_set:
        with suppress(UnicodeError):
            return value.decode()
        return value.decode("latin-1")
    with warnings.catch_warnings(), suppress(UnicodeError, LookupError):
        warnings.simplefilter("ignore")  # of a character set that does not exist
        names = [name.strip() for name in character_set.decode("ascii", "replace").split("\\")]
        text: str = decode_bytes(value, convert_encodings(names), _RESET_BY)
        if "\ufffd" not in text:
            return text
    return value.decode("latin-1")
