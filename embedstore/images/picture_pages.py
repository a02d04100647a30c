"""How many pictures a file holds: pages of a TIFF, frames of a GIF or WebP, from the file's structure alone.

Nothing is decoded and no library is called; of a malformed file the pages up to the fault are counted, and the
decoder says later what is wrong with it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

_MOST_PAGES = 20_000
_SUBFILE_TYPE = 254
_REDUCED, _MASK = 1, 4  # TIFF 6.0, NewSubfileType: a smaller copy of another page, a transparency mask


def picture_pages(file: BinaryIO, format_name: str) -> tuple[int, ...]:
    """Return the numbers of the pages that are pictures of their own, from 0; (0,) for a file of one.

    Smaller copies of a page (thumbnails, pyramids) and masks, as a TIFF declares them, are none.

    Parameters
    ----------
    file
        Positioned anywhere.
    format_name
        From `embedstore.images.file_kind.picture_format`.
    """
    count = _COUNTERS.get(format_name)
    if count is None:
        return (0,)
    file.seek(0)
    try:
        pages = count(file)
    except (struct.error, OverflowError, OSError, ValueError):
        return (0,)
    return pages or (0,)


def _tiff_pages(file: BinaryIO) -> tuple[int, ...]:
    """Walk over the chain of directories; BigTIFF has version 43 and offsets of 64 bits."""
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    offset_format, count_format, entry_format = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
    start = file.read(8) if big else head[4:8]
    (offset,) = struct.unpack(f"{order}{offset_format}", start)
    kinds: list[int] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(kinds) < _MOST_PAGES:
        seen.add(offset)
        file.seek(offset)
        counted = file.read(struct.calcsize(f"{order}{count_format}"))
        if len(counted) < struct.calcsize(f"{order}{count_format}"):
            break
        (count,) = struct.unpack(f"{order}{count_format}", counted)
        size = struct.calcsize(f"{order}{entry_format}")
        entries = file.read(min(count, 1 << 16) * size)
        kinds.append(_subfile_type(entries, f"{order}{entry_format}"))
        file.seek(offset + len(counted) + count * size)
        following = file.read(struct.calcsize(offset_format))
        if len(following) < struct.calcsize(offset_format):
            break
        (offset,) = struct.unpack(f"{order}{offset_format}", following)
    return tuple(page for page, kind in enumerate(kinds) if not kind & (_REDUCED | _MASK))


def _subfile_type(entries: bytes, entry_format: str) -> int:
    whole = len(entries) // struct.calcsize(entry_format) * struct.calcsize(entry_format)
    for tag, kind, _, value in struct.iter_unpack(entry_format, entries[:whole]):
        if tag == _SUBFILE_TYPE:
            number = struct.unpack(
                f"{entry_format[0]}{'H' if kind == 3 else 'I'}", value[: 2 if kind == 3 else 4]
            )
            return int(number[0])
    return 0


def _gif_frames(file: BinaryIO) -> tuple[int, ...]:
    head = file.read(13)
    file.seek(_palette_bytes(head[10]) if len(head) == 13 else 0, io.SEEK_CUR)
    frames = 0
    while frames < _MOST_PAGES and (block := file.read(1)) in (b"\x21", b"\x2c"):
        if block == b"\x21":
            file.read(1)
        else:
            descriptor = file.read(9)
            if len(descriptor) < 9:
                break
            file.seek(_palette_bytes(descriptor[8]) + 1, io.SEEK_CUR)
            frames += 1
        while length := file.read(1):
            if length == b"\0":
                break
            file.seek(length[0], io.SEEK_CUR)
    return tuple(range(frames))


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp_frames(file: BinaryIO) -> tuple[int, ...]:
    return tuple(range(sum(name == b"ANMF" for name in _riff_chunks(file))))


def _riff_chunks(file: BinaryIO) -> Iterator[bytes]:
    file.seek(12)
    for _ in range(_MOST_PAGES):
        head = file.read(8)
        if len(head) < 8:
            return
        yield head[:4]
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, io.SEEK_CUR)


_COUNTERS = {"TIFF": _tiff_pages, "GIF": _gif_frames, "WEBP": _webp_frames}
