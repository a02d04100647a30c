"""The marker segments of a JPEG or JPEG-LS codestream (ITU-T T.81 annex B, T.87 annex C), read without decoding."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from embedstore.codecs.frame_size import FrameSize, no_header, truncated

BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7
# SOF0 ... SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}
_STANDALONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # no length follows
_END, _SCAN, _RESTART_INTERVAL = 0xD9, 0xDA, 0xDD
_AFTER_ENTROPY = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_AFTER_ENTROPY_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # T.87 stuffs a bit, so FF 00 ... FF 7F are data
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


@dataclass(frozen=True)
class Scan:
    """One SOS segment and the entropy-coded data after it.

    Parameters
    ----------
    components
        Number of components coded together.
    predictor, point_transform
        Ss and Al of the segment: for lossless JPEG the selection value and the point transform.
    start, end
        Where the entropy-coded data lie in the codestream.
    """

    components: int
    predictor: int
    point_transform: int
    start: int
    end: int


@dataclass(frozen=True)
class JpegStream:
    """What the marker segments say.

    Parameters
    ----------
    process
        The low byte of the SOF marker.
    size
        Rows, columns, components and precision.
    rows_at
        Where the two bytes of the number of rows lie.
    component_ids, sampling
        Of each component: its id, and its horizontal and vertical sampling factor.
    jfif, adobe_transform
        Whether there is a JFIF segment; the colour transform of an Adobe segment, or None.
    restart_interval
        MCUs between two restart markers, or 0.
    scans
        In their order.
    """

    process: int
    size: FrameSize
    rows_at: int
    component_ids: tuple[int, ...]
    sampling: tuple[tuple[int, int], ...]
    jfif: bool
    adobe_transform: int | None
    restart_interval: int
    scans: tuple[Scan, ...]

    @property
    def has_rgb_ids(self) -> bool:
        """Whether the components are called R, G, B."""
        return bytes(self.component_ids).upper() == b"RGB"


def read_jpeg(content: bytes) -> JpegStream:
    """Read all marker segments of the first image in `content`.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if there is no frame header before the first scan, or no end marker.
    """
    if content[:2] != b"\xff\xd8":
        raise no_header("JPEG")
    frame: tuple[int, FrameSize, int, tuple[int, ...], tuple[tuple[int, int], ...]] | None = None
    scans: list[Scan] = []
    jfif, adobe, interval = False, None, 0
    place = 2
    while place + 2 <= len(content):
        if content[place] != 0xFF:
            raise no_header("JPEG") if frame is None else truncated("JPEG", "a marker is missing")
        marker = content[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker == _END:
            break
        if marker in _STANDALONE_MARKERS:
            place += 2
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place + 4 : place + 2 + length]
        if length < 2 or len(segment) != length - 2:
            raise no_header("JPEG") if frame is None else truncated("JPEG", "a segment is cut")
        if marker in _FRAME_MARKERS:
            frame = _frame(marker, segment, place + 5)
        elif marker == 0xE0 and segment[:4] == b"JFIF":
            jfif = True
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            adobe = segment[11]
        elif marker == _RESTART_INTERVAL and len(segment) == 2:
            interval = int.from_bytes(segment, "big")
        elif marker == _SCAN:
            if frame is None:
                raise no_header("JPEG")
            scans.append(_scan(content, segment, place + 2 + length, frame[0]))
            place = scans[-1].end
            continue
        place += 2 + length
    else:
        raise no_header("JPEG") if frame is None else truncated("JPEG", "the end marker is missing")
    if frame is None or not scans:
        raise no_header("JPEG")
    process, size, rows_at, ids, sampling = frame
    return JpegStream(process, size, rows_at, ids, sampling, jfif, adobe, interval, tuple(scans))


def restart_places(content: bytes, scan: Scan) -> list[int]:
    """Return where each restart marker of a scan begins."""
    return [match.start() for match in _RESTART.finditer(content, scan.start, scan.end)]


def _frame(
    marker: int, segment: bytes, rows_at: int
) -> tuple[int, FrameSize, int, tuple[int, ...], tuple[tuple[int, int], ...]]:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise no_header("JPEG")
    precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
    described = [segment[6 + 3 * number : 9 + 3 * number] for number in range(components)]
    ids = tuple(component[0] for component in described)
    sampling = tuple((component[1] >> 4, component[1] & 15) for component in described)
    return marker, FrameSize(rows, columns, components, precision), rows_at, ids, sampling


def _scan(content: bytes, segment: bytes, start: int, process: int) -> Scan:
    if not segment or len(segment) < 4 + 2 * segment[0]:
        raise truncated("JPEG", "a scan header is cut")
    predictor, _, transform = segment[1 + 2 * segment[0] : 4 + 2 * segment[0]]
    after = (_AFTER_ENTROPY_LS if process == JPEG_LS else _AFTER_ENTROPY).search(content, start)
    if after is None:
        raise truncated("JPEG", "the end marker is missing")
    end = after.start()
    while end > start and content[end - 1] == 0xFF:  # fill bytes belong to the marker
        end -= 1
    return Scan(segment[0], predictor, transform & 15, start, end)
