"""Grey pictures in raster containers, byte by byte from the formats' own pages: no library decides what is in them."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png(samples: np.ndarray, *, colour_type: int, palette: np.ndarray | None = None) -> bytes:
    """Write (h, w) or (h, w, channels) uint8 or uint16 samples as PNG (ISO 15948).

    Parameters
    ----------
    samples
        As many channels as the colour type has: 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGB + alpha.
    colour_type
        Of the IHDR chunk.
    palette
        (256, 3) uint8 for colour type 3.
    """
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1).astype(samples.dtype.newbyteorder(">"))
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.dtype.itemsize, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    if palette is not None:
        chunks.insert(1, (b"PLTE", palette.astype(np.uint8).tobytes()))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def tiff(samples: np.ndarray, *, photometric: int, order: str = "<") -> bytes:
    """Write (h, w[, channels]) samples as an uncompressed TIFF 6.0 of one strip.

    Parameters
    ----------
    samples
        uint8 or uint16, as stored.
    photometric
        0 WhiteIsZero, 1 BlackIsZero, 2 RGB.
    order
        ``<`` (II) or ``>`` (MM).
    """
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    bits, content = 8 * samples.dtype.itemsize, samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    entries_at, count = 8, 10
    bits_at = entries_at + 2 + 12 * count + 4
    content_at = bits_at + 2 * channels
    short, long = 3, 4
    entries = [
        (256, long, 1, width), (257, long, 1, height), (258, short, channels, bits if channels == 1 else bits_at),
        (259, short, 1, 1), (262, short, 1, photometric), (273, long, 1, content_at), (277, short, 1, channels),
        (278, long, 1, height), (279, long, 1, len(content)), (284, short, 1, 1),
    ]  # fmt: skip
    written = struct.pack(f"{order}H", count)
    for tag, kind, number, value in entries:
        inline = kind == short and number == 1
        written += struct.pack(f"{order}HHI", tag, kind, number)
        written += struct.pack(f"{order}HH", value, 0) if inline else struct.pack(f"{order}I", value)
    written += struct.pack(f"{order}I", 0) + struct.pack(f"{order}{channels}H", *[bits] * channels)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", entries_at) + written + content


def pnm(samples: np.ndarray) -> bytes:
    """Write (h, w) as PGM or (h, w, 3) as PPM, of 8 or 16 bits (Netpbm: the upper byte comes first)."""
    kind = "P6" if samples.ndim == 3 else "P5"
    largest = (1 << 8 * samples.dtype.itemsize) - 1
    header = f"{kind}\n{samples.shape[1]} {samples.shape[0]}\n{largest}\n".encode()
    return header + samples.astype(samples.dtype.newbyteorder(">")).tobytes()
