"""The directories of a TIFF file: one for each page, read without decoding a pixel.

Tags and types: TIFF 6.0, sections 2 and 8; BigTIFF has version 43, offsets and counts of 64 bits.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

MOST_PAGES = 20_000
_MOST_ENTRIES = 1 << 12
_MOST_VALUES = 16
_TAGS = frozenset({254, 256, 257, 258, 262, 274, 277, 284, 338, 339})
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_REDUCED, _MASK = 1, 4  # NewSubfileType: a smaller copy of another page, a transparency mask


@dataclass(frozen=True)
class TiffPage:
    """What the tags of one page say.

    Parameters
    ----------
    values
        Tag -> its numbers, for the tags that describe the pixels.
    offset
        Where its directory lies.
    """

    values: Mapping[int, tuple[int, ...]]
    offset: int

    def _first(self, tag: int, default: int) -> int:
        return (self.values.get(tag) or (default,))[0]

    @property
    def is_picture(self) -> bool:
        """Whether the page is a picture of its own: no thumbnail, level of a pyramid or mask."""
        return not self._first(254, 0) & (_REDUCED | _MASK)

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self._first(256, 0)

    @property
    def height(self) -> int:
        """Rows."""
        return self._first(257, 0)

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return max(self.values.get(258) or (1,))

    @property
    def photometric(self) -> int:
        """PhotometricInterpretation: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, ..."""
        return self._first(262, 1)

    @property
    def orientation(self) -> int:
        """How the stored picture stands, as in EXIF; 1 is upright."""
        return self._first(274, 1)

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self._first(277, 1)

    @property
    def separate_planes(self) -> bool:
        """Whether the samples lie in planes behind each other."""
        return self._first(284, 1) == 2

    @property
    def extra(self) -> tuple[int, ...]:
        """ExtraSamples: 0 unspecified, 1 associated alpha, 2 unassociated alpha."""
        return self.values.get(338) or ()

    @property
    def sample_format(self) -> int:
        """1 unsigned, 2 signed, 3 floating point."""
        return self._first(339, 1)


def all_tags(content: bytes, page: TiffPage) -> Any:
    """Return every tag of a page, as Pillow reads them."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2  # costs more to import than a PNG costs to decode

    tags = ImageFileDirectory_v2(content[:16] if 43 in (content[2], content[3]) else content[:8])
    file = io.BytesIO(content)
    file.seek(page.offset)
    tags.load(file)
    return tags


def tiff_pages(file: BinaryIO) -> Iterator[TiffPage]:
    """Yield the pages in order.

    Parameters
    ----------
    file
        Positioned anywhere.

    Raises
    ------
    struct.error, ValueError, OverflowError
        At a directory that is malformed or cut short.
    """
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    word, count_word = ("Q", "Q") if big else ("I", "H")
    (offset,) = struct.unpack_from(f"{order}{word}", head, 8 if big else 4)
    size = 20 if big else 12
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < MOST_PAGES:
        seen.add(offset)
        file.seek(offset)
        (count,) = struct.unpack(f"{order}{count_word}", file.read(struct.calcsize(f"<{count_word}")))
        if count > _MOST_ENTRIES:
            raise ValueError(f"a directory has {count} entries")
        entries = file.read(count * size)
        following = file.read(struct.calcsize(f"<{word}"))
        (next_offset,) = struct.unpack(f"{order}{word}", following)
        values = {}
        for start in range(0, len(entries), size):
            (tag,) = struct.unpack_from(f"{order}H", entries, start)
            if tag in _TAGS:
                values[tag] = _numbers(file, entries[start : start + size], order, word)
        yield TiffPage(values, offset)
        offset = next_offset


def _numbers(file: BinaryIO, entry: bytes, order: str, word: str) -> tuple[int, ...]:
    """Return the numbers of an entry, which stand in it if they fit, else where it points to."""
    kind, count = struct.unpack_from(f"{order}H{word}", entry, 2)
    if kind not in _TYPES or not 0 < count <= _MOST_VALUES:
        return ()
    wanted = f"{order}{count}{_TYPES[kind]}"
    field = entry[-struct.calcsize(f"<{word}") :]
    if struct.calcsize(wanted) > len(field):
        file.seek(struct.unpack(f"{order}{word}", field)[0])
        field = file.read(struct.calcsize(wanted))
    return struct.unpack_from(wanted, field)
