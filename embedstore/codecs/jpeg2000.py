"""JPEG 2000 through OpenJPEG and its high-throughput kind through OpenJPH, refused unless all tile-parts are there."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embedstore.codecs.frame_size import FrameSize, Samples, no_header, truncated
from embedstore.errors import ImageRefused, Reason

_SOC_SIZ = b"\xff\x4f\xff\x51"  # start of a codestream (T.800 A.4.1, A.5.1)
_PART_15 = 0x4000  # Rsiz of high-throughput streams (T.814 A.2)
_LONGEST_BOXES = 4096  # a JP2 header before the codestream, which DICOM forbids and some devices write
_HOOK = threading.Lock()


def jpeg2000_size(content: bytes) -> FrameSize:
    """Return the size in the SIZ segment of a codestream, a JP2 header before it skipped.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if there is no SIZ segment, or it gives an image of no area.
    """
    start = content.find(_SOC_SIZ, 0, _LONGEST_BOXES)
    if start < 0 or len(content) < start + 43:
        raise no_header("JPEG 2000")
    right, bottom, left, top = struct.unpack_from(">4I", content, start + 8)
    (components,) = struct.unpack_from(">H", content, start + 40)
    if right <= left or bottom <= top:
        raise ImageRefused(Reason.UNREADABLE, "the JPEG 2000 header describes an image of no area")
    return FrameSize(bottom - top, right - left, components, (content[start + 42] & 0x7F) + 1)


def decode_jpeg2000(content: bytes) -> Samples:
    """Decode one JPEG 2000 or HTJ2K image, its component transform undone.

    Returns
    -------
    (rows, columns) or (rows, columns, components) of the narrowest type for the precision; signed where the
    codestream says so.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if a tile-part is cut or missing.
    """
    import imagecodecs

    jpeg2000_size(content)
    stream = content[content.index(_SOC_SIZ) :]
    _check_tile_parts(stream)
    if int.from_bytes(stream[6:8], "big") & _PART_15:
        with _raising_what_is_swallowed():
            return imagecodecs.htj2k_decode(stream, planar=False)
    return imagecodecs.jpeg2k_decode(stream, planar=False, numthreads=1)


def encode_jpeg2000(pixels: Samples, precision: int) -> bytes:
    """Encode (rows, columns) losslessly as a codestream of `precision` bits; for phantoms."""
    import imagecodecs

    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels, codecformat="j2k", reversible=True, bitspersample=precision, numthreads=1
        )
    )


def _check_tile_parts(stream: bytes) -> None:
    """Walk over the tile-parts (T.800 A.4.2): each begins where the one before says, and EOC ends them."""
    place = 2
    while stream[place : place + 2] != b"\xff\x90":  # main header
        if place + 4 > len(stream) or stream[place] != 0xFF:
            raise truncated("JPEG 2000", "there is no tile-part")
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    right, bottom, _, _, wide, high, left, top = struct.unpack_from(">8I", stream, 8)
    if not wide or not high:
        raise truncated("JPEG 2000", "its tiles have no area")
    tiles = -(-(right - left) // wide) * -(-(bottom - top) // high)
    seen = set()
    while stream[place : place + 2] == b"\xff\x90" and len(stream) >= place + 12:
        tile, length, _, _ = struct.unpack_from(">HIBB", stream, place + 4)
        seen.add(tile)
        if length == 0:  # the last tile-part, up to the end
            place = max(stream.rfind(b"\xff\xd9"), place + 12)
            break
        if length < 14 or place + length > len(stream):
            raise truncated("JPEG 2000", "a tile-part is cut")
        place += length
    if stream[place : place + 2] != b"\xff\xd9":
        raise truncated("JPEG 2000", "the end marker is missing")
    if len(seen) < tiles:
        raise truncated("JPEG 2000", f"{tiles} tiles must be there; found {len(seen)}")


@contextmanager
def _raising_what_is_swallowed() -> Iterator[None]:
    """Raise errors of OpenJPH that imagecodecs 2026.3.6 only reports and then returns an image without content.

    The binding calls the decoder in a function that cannot raise; what it throws reaches `sys.unraisablehook`.
    """
    reported: list[Any] = []
    with _HOOK:
        before, sys.unraisablehook = sys.unraisablehook, reported.append
        try:
            yield
        finally:
            sys.unraisablehook = before
    if reported:
        raise truncated("HTJ2K", "the decoder gave up")
