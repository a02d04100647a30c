"""Frames that are deflated (PS3.5 A.4.13) or run-length encoded (PS3.5 annex G), to exactly the bytes expected."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from embedstore.codecs.frame_size import Samples, truncated


def inflate_frame(content: bytes, length: int) -> bytes:
    """Inflate one frame (RFC 1951, no header) to `length` bytes; a padding byte after its end is ignored.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if the frame is longer, shorter or cut; never more than `length` is inflated.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    frame = inflater.decompress(content, length + 1)
    if len(frame) != length or not inflater.eof:
        raise truncated("deflated", f"a frame must have {length:,} bytes; found {_found(frame, length)}")
    return frame


def check_inflated_length(content: bytes, length: int, kind: str) -> None:
    """Refuse zlib data (RFC 1950) that inflate to less than `length` bytes or lack their right checksum.

    Raises
    ------
    ImageRefused
        With ``unreadable``.
    """
    import imagecodecs

    try:
        found = len(imagecodecs.deflate_decode(content, out=length))  # libdeflate: twice as fast as zlib
    except RuntimeError:  # cut, damaged, or longer: inflated to its end, which need not be far
        inflater = zlib.decompressobj()
        found = len(inflater.decompress(content, 2 * length + (1 << 16)))
        if not inflater.eof:
            raise truncated(kind, "the compressed samples have no end") from None
    if found < length:
        raise truncated(kind, f"{length:,} bytes of samples must be there; found {found:,}")


def decode_rle(content: bytes, *, rows: int, columns: int, samples: int, dtype: np.dtype[np.void]) -> Samples:
    """Decode one frame of DICOM run-length encoding.

    Returns
    -------
    (rows, columns) or (rows, columns, samples) of `dtype`.

    Raises
    ------
    ImageRefused
        With ``unreadable`` for a frame with other segments than one for each byte of a sample.
    """
    import imagecodecs

    segments, *offsets = struct.unpack_from("<16I", content.ljust(64, b"\0"))
    if segments != samples * dtype.itemsize or not 1 <= segments <= 15:
        raise truncated("RLE", f"{samples * dtype.itemsize} segments must be there; found {segments}")
    ends = [*offsets[1:segments], len(content)]
    frame = np.empty((rows, columns, samples, dtype.itemsize), np.uint8)
    for number, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        if not 64 <= start < end <= len(content):
            raise truncated("RLE", f"segment {number + 1} is cut")
        plane = imagecodecs.packbits_decode(content[start:end], out=rows * columns)
        if len(plane) != rows * columns:
            raise truncated("RLE", f"a segment must have {rows * columns:,} bytes; found {len(plane):,}")
        # Each sample's bytes come one plane after the other, the most significant first (PS3.5 G.2).
        sample, place = divmod(number, dtype.itemsize)
        frame[..., sample, dtype.itemsize - 1 - place] = np.frombuffer(plane, np.uint8).reshape(rows, columns)
    words = frame.reshape(rows, columns, samples * dtype.itemsize).view(dtype.newbyteorder("<"))
    return words[..., 0] if samples == 1 else words


def _found(frame: bytes, length: int) -> str:
    return "more" if len(frame) > length else f"{len(frame):,}"
