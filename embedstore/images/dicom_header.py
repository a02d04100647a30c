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
from embedstore.images.file_kind import HEAD_BYTES, BareEncoding, bare_encoding, has_preamble
from embedstore.images.hostile import BoundedReader

_PIXEL_KEYWORDS = {
    0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData",
}  # fmt: skip


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
    file.seek(0)
    if not has_preamble(file.read(HEAD_BYTES)):
        file.seek(0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    stream: BinaryIO = file
    start = file.read(8)
    file.seek(-len(start), io.SEEK_CUR)
    bare = bare_encoding(start) or BareEncoding(implicit=True, little_endian=True)
    syntax = meta.get("TransferSyntaxUID") or _syntax_of(bare)
    if not isinstance(syntax, uid.UID):
        raise ImageRefused(Reason.UNREADABLE, "TransferSyntaxUID must be a single UID")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        stream = _inflated(file.read(), max_inflated_bytes)
    header = read_dataset(
        stream,
        # No syntax is implicit and big endian; files of before 1993 (ACR-NEMA) are.
        syntax == uid.ImplicitVRLittleEndian or ("TransferSyntaxUID" not in meta and bare.implicit),
        syntax != uid.ExplicitVRBigEndian,
        stop_when=lambda tag, _vr, _length: int(tag) in _PIXEL_KEYWORDS,
    )
    if str(header.get("RecognitionCode") or "").strip().upper().startswith("ACR-NEMA"):
        # These attributes came with DICOM; before, an image was grey and its lowest value black.
        header.setdefault("SamplesPerPixel", 1)
        header.setdefault("PhotometricInterpretation", "MONOCHROME2")
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


def _syntax_of(bare: BareEncoding) -> uid.UID:
    """Return the native syntax of a file without meta information."""
    if not bare.little_endian:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if bare.implicit else uid.ExplicitVRLittleEndian


def _inflated(deflated: bytes, max_bytes: int) -> BinaryIO:
    """Inflate to at most `max_bytes`; pydicom itself would inflate a bomb whole before any check."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(deflated, max_bytes)
    if inflater.unconsumed_tail or (not inflater.eof and len(content) >= max_bytes):
        raise ImageRefused(Reason.TOO_LARGE, f"the deflated data inflate beyond {max_bytes:,} bytes")
    if not inflater.eof:
        raise ImageRefused(Reason.UNREADABLE, "the deflated data are truncated")
    return io.BytesIO(content)
