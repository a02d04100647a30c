"""What a compressed image says about its own size, read from its header before any codec runs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from embedstore.errors import ImageRefused, Reason

# SOF0 ... SOF15 of JPEG (ITU-T T.81 B.1.1.3) without DHT, JPG and DAC, and SOF55 of JPEG-LS (T.87 C.2.2).
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_STANDALONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # no length follows
_SOC_SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream (T.800 A.4.1, A.5.1)


@dataclass(frozen=True)
class CodestreamSize:
    """Rows, columns, components and bits per component that a codestream claims."""

    rows: int
    columns: int
    components: int
    precision: int


def jpeg_size(codestream: bytes) -> CodestreamSize:
    """Return the size in the frame header of a JPEG or JPEG-LS codestream.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if there is no frame header.
    """
    if codestream[:2] != b"\xff\xd8":
        raise _no_header("JPEG")
    place = 2
    while place + 4 <= len(codestream):
        if codestream[place] != 0xFF:
            raise _no_header("JPEG")
        marker = codestream[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in _STANDALONE_MARKERS:
            place += 2
            continue
        length = int.from_bytes(codestream[place + 2 : place + 4], "big")
        if marker in _FRAME_MARKERS and place + 10 <= len(codestream):
            precision, rows, columns, components = struct.unpack_from(">BHHB", codestream, place + 4)
            return CodestreamSize(rows, columns, components, precision)
        if marker == 0xDA or length < 2:  # image data begins: no frame header came before it
            raise _no_header("JPEG")
        place += 2 + length
    raise _no_header("JPEG")


def jpeg2000_size(codestream: bytes) -> CodestreamSize:
    """Return the size in the SIZ segment of a JPEG 2000 or HTJ2K codestream, a JP2 box before it skipped.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if there is no SIZ segment, or it gives an image of no area.
    """
    start = codestream.find(_SOC_SIZ, 0, 4096)
    if start < 0 or len(codestream) < start + 43:
        raise _no_header("JPEG 2000")
    right, bottom, left, top = struct.unpack_from(">4I", codestream, start + 8)
    (components,) = struct.unpack_from(">H", codestream, start + 40)
    precision = (codestream[start + 42] & 0x7F) + 1
    if right <= left or bottom <= top:
        raise ImageRefused(Reason.UNREADABLE, "the JPEG 2000 header describes an image of no area")
    return CodestreamSize(bottom - top, right - left, components, precision)


def ends_properly(codestream: bytes) -> bool:
    """Return whether the end marker of JPEG, JPEG-LS and JPEG 2000 (FF D9) closes the codestream.

    OpenJPEG decodes a truncated codestream as far as it goes and reports success, so this is asked first.
    """
    return b"\xff\xd9" in codestream[-16:] or codestream.rstrip(b"\0").endswith(b"\xff\xd9")


def _no_header(kind: str) -> ImageRefused:
    return ImageRefused(Reason.UNREADABLE, f"the compressed frame has no {kind} header")
