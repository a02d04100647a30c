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

    (segments,) = struct.unpack_from("<I", content.ljust(64, b"\0"))
    if segments != samples * dtype.itemsize:
        raise truncated("RLE", f"{samples * dtype.itemsize} segments must be there; found {segments}")
    expected = rows * columns * samples * dtype.itemsize
    decoded = imagecodecs.dicomrle_decode(content, dtype, out=expected)
    if len(decoded) != expected:
        raise truncated("RLE", f"a frame must have {expected:,} bytes; found {len(decoded):,}")
    planes = np.frombuffer(decoded, dtype).reshape(samples, rows, columns)
    return planes[0] if samples == 1 else np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def _found(frame: bytes, length: int) -> str:
    return "more" if len(frame) > length else f"{len(frame):,}"
