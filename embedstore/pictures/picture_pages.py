"""How many pictures a file holds: pages of a TIFF, frames of a GIF or WebP, from the file's structure alone.

Nothing is decoded and no library is called; of a malformed file the pages up to the fault are counted, and the
decoder says later what is wrong with it. A PNG is one picture: what animates it is an extension that most
software ignores.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import BinaryIO

from embedstore.pictures.tiff_directory import MOST_PAGES, tiff_pages


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
    pages: tuple[int, ...] = ()
    if format_name == "TIFF":
        pages = _pages_of_tiff(file)
    elif format_name == "GIF":
        pages = tuple(range(_gif_frames(file)))
    elif format_name == "WEBP":
        pages = tuple(range(_webp_frames(file)))
    return pages or (0,)


def _pages_of_tiff(file: BinaryIO) -> tuple[int, ...]:
    pages = []
    with suppress(struct.error, ValueError, OverflowError, OSError):
        for number, page in enumerate(tiff_pages(file)):
            if page.is_picture:
                pages.append(number)
    return tuple(pages)


def _gif_frames(file: BinaryIO) -> int:
    """Count the image descriptors (GIF89a, section 20)."""
    file.seek(0)
    head = file.read(13)
    file.seek(_palette_bytes(head[10]) if len(head) == 13 else 0, io.SEEK_CUR)
    frames = 0
    while frames < MOST_PAGES and (block := file.read(1)) in (b"\x21", b"\x2c"):
        if block == b"\x21":
            file.read(1)
        else:
            descriptor = file.read(9)
            if len(descriptor) < 9:
                break
            file.seek(_palette_bytes(descriptor[8]) + 1, io.SEEK_CUR)
            frames += 1
        while (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], io.SEEK_CUR)
    return frames


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp_frames(file: BinaryIO) -> int:
    """Count the chunks that are a frame of an animation."""
    file.seek(12)
    frames = 0
    while frames < MOST_PAGES and len(head := file.read(8)) == 8:
        frames += head[:4] == b"ANMF"
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, io.SEEK_CUR)
    return frames
