"""What kind of file begins with some bytes: DICOM in all its forms, or a picture format.

The one recogniser: folders are searched and files are decoded by it, so what is found can be opened. It imports
no library, because a process that sees only PNGs need not load one of DICOM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

DICOM = "DICOM"
HEAD_BYTES = 132  # a DICOM file says so at 128
_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
# One pattern, as a million files may be asked for. "+" in TIFF: BigTIFF, offsets of 64 bits.
_PICTURE = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<BMP>BM)"
    rb"|(?P<GIF>GIF8[79]a)|(?P<WEBP>RIFF.{4}WEBP)|(?P<PPM>P[1-6]\s)",
    re.DOTALL,
)
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
# A data set begins with group 8; files whose group 8 was stripped begin with one of the others.
_META, _FIRST = 0x0002, 0x0008
_LATER = frozenset({0x0010, 0x0018, 0x0020, 0x0028})
_LONGEST_FIRST_VALUE = 1 << 16


@dataclass(frozen=True)
class BareEncoding:
    """How a data set without preamble is written, as its first element shows.

    Parameters
    ----------
    implicit
        Whether value representations are left out.
    little_endian
        Byte order.
    """

    implicit: bool
    little_endian: bool


def file_kind(head: bytes) -> str | None:
    """Return ``DICOM``, the name of a picture format, or None.

    Parameters
    ----------
    head
        The first 132 bytes of the file, or all of it.
    """
    # DICOM first: its preamble may hold a TIFF header (PS3.10 7.1).
    if has_preamble(head):
        return DICOM
    return picture_format(head) or (DICOM if bare_encoding(head) is not None else None)


def has_preamble(head: bytes) -> bool:
    """Return whether `head`, the first 132 bytes of a file, is a DICOM preamble with its ``DICM``."""
    return head[_PREAMBLE_BYTES:HEAD_BYTES] == _MAGIC


def picture_format(head: bytes) -> str | None:
    """Return the name of the picture format that `head` begins, or None; at least 16 bytes are needed."""
    found = _PICTURE.match(head)
    return found.lastgroup if found else None


def bare_encoding(head: bytes) -> BareEncoding | None:
    """Return how a DICOM file without preamble is written, or None if `head` begins no such file.

    Its first element is of group 2 (file meta information) or 8: group length, length to end, recognition code
    (ACR-NEMA), character set, image type, ...; in either byte order, with a value representation or without.
    A data set that has lost its group 8 is known by its value representation.
    """
    if len(head) < 8:
        return None
    orders: tuple[tuple[bool, Literal["little", "big"]], ...] = ((True, "little"), (False, "big"))
    for little_endian, order in orders:
        group = int.from_bytes(head[:2], order)
        first = group == _FIRST or (group == _META and little_endian)
        if head[4:6] in _VRS:
            if first or group in _LATER:
                return BareEncoding(False, little_endian)
        elif first and int.from_bytes(head[4:8], order) < _LONGEST_FIRST_VALUE:
            return BareEncoding(True, little_endian)
    return None
