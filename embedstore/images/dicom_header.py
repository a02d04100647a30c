"""The header of a DICOM file, up to its pixels, read within limits."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO, Literal

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from embedstore.errors import ImageRefused, Reason
from embedstore.images.hostile import BoundedReader

_PIXEL_KEYWORDS = {
    0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData",
}  # fmt: skip


def looks_like_dicom(head: bytes) -> bool:
    """Return whether a file that begins with `head` (132 bytes or all of it) may be DICOM.

    Without the preamble and its ``DICM`` a data set begins with an element of group 2 or 8, with an
    explicit VR or a short length; big-endian files show group 8 the other way round.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8 or head[:2] not in {b"\x02\0", b"\x08\0", b"\0\x08"}:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") < 1 << 16


def read_header(file: BoundedReader, max_inflated_bytes: int) -> tuple[Dataset, uid.UID, BinaryIO]:
    """Read all elements before the pixels.

    Returns
    -------
    The elements, the transfer syntax (guessed where the file has no meta information), and the stream that
    stands at the pixel element: the file itself, or the inflated content of a deflated one.

    Raises
    ------
    ImageRefused
        ``too-large`` for a deflated file beyond the limit; pydicom's own errors pass through.
    """
    file.seek(128)
    if file.read(4) != b"DICM":
        file.seek(0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    stream: BinaryIO = file
    syntax = meta.get("TransferSyntaxUID") or _guessed_syntax(file)
    if not isinstance(syntax, uid.UID):
        raise ImageRefused(Reason.UNREADABLE, "TransferSyntaxUID must be a single UID")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        stream = _inflated(file.read(), max_inflated_bytes)
    header = read_dataset(
        stream,
        syntax == uid.ImplicitVRLittleEndian,
        syntax != uid.ExplicitVRBigEndian,
        stop_when=lambda tag, _vr, _length: int(tag) in _PIXEL_KEYWORDS,
    )
    return header, syntax, stream


def pixel_element(stream: BinaryIO, header: Dataset) -> dict[str, Any]:
    """Read the head of the pixel element, at which `stream` stands, and leave it at the value."""
    implicit, little = header.original_encoding
    order: Literal["little", "big"] = "little" if little else "big"
    head = stream.read(8)
    tag = BaseTag(int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)) if head else None
    keyword = _PIXEL_KEYWORDS.get(tag) if tag is not None else None
    if keyword is None or len(head) < 8:
        raise ImageRefused(Reason.NO_PIXELS, "the file holds no PixelData")
    if implicit:
        return {"pixel_keyword": keyword, "pixels_length": int.from_bytes(head[4:], order)}
    length = stream.read(4)  # OB, OW, OF, OD: two reserved bytes, then a length of 32 bits
    return {
        "pixel_keyword": keyword,
        "pixel_vr": head[4:6].decode("latin-1"),
        "pixels_length": int.from_bytes(length, order),
    }


def _guessed_syntax(file: BoundedReader) -> uid.UID:
    """Return the native syntax that the first element of a file without meta information shows."""
    start = file.read(6)
    file.seek(-len(start), io.SEEK_CUR)
    if not (start[4:6].isalpha() and start[4:6].isupper()):
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if start[:1] == b"\0" else uid.ExplicitVRLittleEndian


def _inflated(deflated: bytes, max_bytes: int) -> BinaryIO:
    """Inflate to at most `max_bytes`; pydicom itself would inflate a bomb whole before any check."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(deflated, max_bytes)
    if inflater.unconsumed_tail or (not inflater.eof and len(content) >= max_bytes):
        raise ImageRefused(Reason.TOO_LARGE, f"the deflated data inflate beyond {max_bytes:,} bytes")
    if not inflater.eof:
        raise ImageRefused(Reason.UNREADABLE, "the deflated data are truncated")
    return io.BytesIO(content)
