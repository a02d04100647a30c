"""JPEG of 8 and 12 bits and lossless JPEG through libjpeg-turbo, refused unless every sample was coded.

libjpeg fills what a damaged stream lacks with grey and only warns, and no Python library hands the warning on.
So the frame header is made to claim a few rows more than the stream has. A sound stream is at its end exactly
when these begin: the first block of them is decoded from the padding bits, and the rest is the grey of blocks
that were skipped. Grey from the start says that samples were missing before; anything but grey after the first
block says that samples were left over, as from a sector of zeros in the middle.

That cannot be done with several scans. Those of 8 bits are decoded once more by TurboJPEG, which counts what is
left of each scan and says what libjpeg warned of; where it cannot, the image may not depend on what stands after
the entropy-coded data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.codecs.frame_size import Samples, truncated, unsupported
from embedstore.codecs.jpeg_stream import (
    BASELINE,
    EXTENDED,
    LOSSLESS,
    PROGRESSIVE,
    JpegStream,
    read_jpeg,
    restart_places,
)

_LARGEST_ROWS = 65_500  # JPEG_MAX_DIMENSION
_PADDING_SYMBOLS = 8  # at most seven padding bits end a scan, so at most seven symbols come of them
# Two patterns, as a code that a table lacks decodes like zeros; neither holds FF, with which a marker begins.
_OTHER_BITS = (b"\xaa" * 512, b"\x6d\xb6\xdb" * 171)
_SPACES = {1: "GRAYSCALE", 3: "RGB", 4: "CMYK"}


def decode_jpeg(content: bytes, stream: JpegStream | None = None) -> Samples:
    """Decode one JPEG image to the components that it codes, without a change of colour space.

    An Adobe segment that says YCbCr is followed, because it is the stream itself that says so.

    Parameters
    ----------
    content
        From SOI to EOI; what follows is ignored.
    stream
        Its marker segments, where they were read already.

    Returns
    -------
    (rows, columns) or (rows, columns, components), uint8 up to 8 bits and uint16 above.

    Raises
    ------
    ImageRefused
        With ``unreadable`` for a stream that codes fewer or more samples than its header says, and with
        ``unsupported`` for arithmetic coding, hierarchical JPEG and lossless JPEG of unequal sampling.
    """
    stream = stream or read_jpeg(content)
    _check_process(stream)
    return _whole(content, stream, _as_coded(stream))


def check_jpeg(content: bytes, *, rows: int, columns: int) -> None:
    """Refuse a JPEG file that does not code all of its samples.

    A file of a kind that cannot be checked here (arithmetic coding, hierarchical) passes: its reader decides.

    Parameters
    ----------
    content
        The file.
    rows, columns
        What its reader found; a frame header that says otherwise is refused.

    Raises
    ------
    ImageRefused
        With ``unreadable``.
    """
    stream = read_jpeg(content)
    stream.size.require(rows=rows, columns=columns, components=stream.size.components)
    if stream.process in {BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS}:
        _check_process(stream)
        # Blocks are counted in every component alike, so brightness alone is made into pixels.
        ycbcr = stream.size.components == 3 and stream.process != LOSSLESS and len(stream.scans) == 1
        _whole(content, stream, _Target("YCBCR", "GRAYSCALE", 128, False) if ycbcr else _as_coded(stream))


@dataclass(frozen=True)
class _Target:
    """Colour spaces of stream and pixels for libjpeg, the grey of skipped blocks, and whether rows are mixed."""

    coded: str
    decoded: str
    grey: Any
    mixes_rows: bool

    def decode(self, content: bytes) -> Samples:
        import imagecodecs

        return imagecodecs.jpeg8_decode(content, colorspace=self.coded, outcolorspace=self.decoded)


def _as_coded(stream: JpegStream) -> _Target:
    space = _SPACES[stream.size.components]
    adobe = stream.adobe_transform == 1 and stream.size.components == 3 and stream.process != LOSSLESS
    mixes_rows = len({vertical for _, vertical in stream.sampling}) > 1
    return _Target("YCBCR" if adobe else space, space, 1 << (stream.size.precision - 1), mixes_rows)


def _whole(content: bytes, stream: JpegStream, target: _Target) -> Samples:
    rows, extra = stream.size.rows, _extra_rows(stream)
    if not extra:
        pixels = target.decode(content)
        if not _decodes_without_warning(content, stream):
            _compare_with_other_padding(content, stream, target, pixels)
        return pixels
    longer = target.decode(_with_rows(content, stream, rows + extra))
    pixels = longer[:rows]
    if _looks_short(longer[rows:], stream, target) or stream.restart_interval:
        _compare_with_other_padding(content, stream, target, pixels)
    _check_for_more(longer[rows - 1 :], stream, target)
    # Smooth upsampling across rows would mix the grey of the rows that are not there into the last one.
    return target.decode(content) if target.mixes_rows else pixels


def _check_process(stream: JpegStream) -> None:
    size = stream.size
    if stream.process not in {BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS}:
        raise unsupported(f"JPEG process SOF{stream.process - 0xC0} has no decoder")
    if stream.process != LOSSLESS:
        if size.precision not in {8, 12}:
            raise unsupported(f"JPEG of {size.precision} bits is in no process of the standard")
    elif not all(1 <= scan.first <= 7 and scan.low_bit < size.precision for scan in stream.scans):
        raise truncated("JPEG", "a lossless scan must have a predictor of 1 to 7")
    elif len(set(stream.sampling)) > 1:
        raise unsupported("lossless JPEG whose components are sampled differently has no decoder")
    if size.components not in _SPACES:
        raise unsupported(f"JPEG of {size.components} components has no decoder")
    _check_scans(stream)
    if stream.process == PROGRESSIVE:
        _check_progression(stream)


def _check_progression(stream: JpegStream) -> None:
    """Refuse scans that do not follow on each other (T.81 G.1.1.1): one between them is missing."""
    bits: dict[tuple[int, int], int] = {}  # the Al so far of each coefficient of each component
    for number, scan in enumerate(stream.scans, 1):
        for component in scan.component_ids:
            before = {bits.get((component, place), 0) for place in range(scan.first, scan.last + 1)}
            without_dc = scan.first > 0 and (component, 0) not in bits
            bits |= {(component, place): scan.low_bit for place in range(scan.first, scan.last + 1)}
            skips = scan.high_bit > 0 and scan.low_bit != scan.high_bit - 1
            if without_dc or skips or before != {scan.high_bit}:
                raise truncated("JPEG", f"scan {number} does not follow on the scans before it")


def _check_scans(stream: JpegStream) -> None:
    """Refuse a stream without the last bit of a coefficient of a component: the scan with it is missing."""
    for component in stream.component_ids:
        coded = set()
        for scan in stream.scans:
            if component in scan.component_ids and (stream.process != PROGRESSIVE or not scan.low_bit):
                coded |= (
                    set(range(scan.first, scan.last + 1)) if stream.process == PROGRESSIVE else set(range(64))
                )
        if coded != set(range(64)):
            raise truncated("JPEG", f"a scan of component {component} is missing")


def _extra_rows(stream: JpegStream) -> int:
    """Return by how many rows the header may be made to lie, or 0 where that would tell nothing."""
    if stream.process == PROGRESSIVE or len(stream.scans) > 1:
        return 0
    if stream.process == LOSSLESS:
        extra = 2
    else:
        high = 8 * max(vertical for _, vertical in stream.sampling) if stream.size.components > 1 else 8
        extra = -stream.size.rows % high + 2 * high
    return extra if stream.size.rows + extra <= _LARGEST_ROWS else 0


def _block(stream: JpegStream) -> tuple[int, int]:
    """Return rows and columns of the smallest piece that is coded by itself."""
    if stream.process == LOSSLESS:
        return 1, _PADDING_SYMBOLS
    if stream.size.components == 1:
        return 8, 8
    return 8 * max(vertical for _, vertical in stream.sampling), 8 * max(wide for wide, _ in stream.sampling)


def _looks_short(after: Samples, stream: JpegStream, target: _Target) -> bool:
    """Return whether the first block after the end is grey, as if the data had ended before."""
    high, wide = _block(stream)
    start = after.shape[0] - 2 * high
    if target.mixes_rows:  # the first row of it is mixed with the last real one
        start, high = start + 1, high - 1
    return bool((after[start : start + high, :wide] == target.grey).all())


def _check_for_more(after: Samples, stream: JpegStream, target: _Target) -> None:
    """Refuse samples after the end; the first row of `after` is the last one of the image."""
    high, wide = _block(stream)
    more = bool((after[-(high - 1 if target.mixes_rows else high) :] != target.grey).any())
    if stream.process == LOSSLESS:
        more = more or _residuals_differ(after, stream)
    else:
        # One column more than the block: smooth upsampling mixes neighbours.
        more = more or bool((after[-2 * high + 1 : -high, wide + 1 :] != target.grey).any())
    if more:
        raise truncated("JPEG", "the data go on after the last row")


def _residuals_differ(after: Samples, stream: JpegStream) -> bool:
    """Return whether the first row after a lossless image is anything but the code of all zero bits, repeated.

    Predictors 5 to 7 round, which wraps of the last row would hide; they are judged by the second row alone.
    """
    predictor = stream.scans[0].first
    if predictor > 4 or stream.restart_interval:
        return False
    above, row = after[0].astype(np.int64), after[1].astype(np.int64)
    left, up, corner = row[:-1], above[1:], above[:-1]
    predicted = {1: left, 2: up, 3: corner, 4: left + up - corner}[predictor]
    residuals = ((row[1:] - predicted) % (1 << 8 * after.dtype.itemsize))[_PADDING_SYMBOLS:]
    return bool((residuals != residuals[:1]).any())


def _decodes_without_warning(content: bytes, stream: JpegStream) -> bool:
    """Return whether TurboJPEG decodes the stream; False where it cannot, as for 12 bits and rare sampling.

    Raises
    ------
    ImageRefused
        With ``unreadable`` where it says that data are lacking or left over.
    """
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(
            content, colorspace="CMYK" if stream.size.components == 4 else "GRAY", strict=True
        )
    except ValueError as error:
        # jerror.h of libjpeg: its other warnings are of Adobe and JFIF segments, and of Se = 0 in sequential scans.
        if str(error).startswith(("Corrupt", "Premature", "Inconsistent")):
            raise truncated("JPEG", str(error).removeprefix("Corrupt JPEG data: ")) from None
        return False
    return True


def _compare_with_other_padding(content: bytes, stream: JpegStream, target: _Target, pixels: Samples) -> None:
    """Refuse a stream whose image depends on what stands after its entropy-coded data."""
    _check_restarts(content, stream)
    ends = [at for scan in stream.scans for at in [*restart_places(content, scan), scan.end]]
    for bits in _OTHER_BITS:
        pieces = [content[start:end] for start, end in zip([0, *ends], [*ends, len(content)], strict=True)]
        if not np.array_equal(target.decode(bits.join(pieces)), pixels):
            raise truncated("JPEG", "it ends before its last row, or a part of it does")


def _check_restarts(content: bytes, stream: JpegStream) -> None:
    if not stream.restart_interval or stream.process == PROGRESSIVE or len(stream.scans) > 1:
        return
    high, wide = (1, 1) if stream.process == LOSSLESS else _block(stream)
    units = -(-stream.size.rows // high) * -(-stream.size.columns // wide)
    numbers = [content[at + 1] - 0xD0 for at in restart_places(content, stream.scans[0])]
    expected = -(-units // stream.restart_interval) - 1
    if numbers != [number % 8 for number in range(expected)]:
        raise truncated("JPEG", f"it must have {expected} restart markers in order; found {len(numbers)}")


def _with_rows(content: bytes, stream: JpegStream, rows: int) -> bytes:
    at = stream.rows_at
    return content[:at] + struct.pack(">H", rows) + content[at + 2 :]
