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
_END, _SCAN, _RESTART_INTERVAL, _JFIF, _ADOBE = 0xD9, 0xDA, 0xDD, 0xE0, 0xEE
_APPLICATION = {_JFIF: b"JFIF", _ADOBE: b"Adobe"}  # other segments with these markers say nothing here
_AFTER_ENTROPY = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_AFTER_ENTROPY_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # T.87 stuffs a bit, so FF 00 ... FF 7F are data
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


@dataclass(frozen=True)
class Scan:
    """One SOS segment and the entropy-coded data after it.

    Parameters
    ----------
    component_ids
        The components coded together.
    first, last
        Ss and Se: the band of coefficients; Ss is the predictor of lossless JPEG.
    high_bit
        Ah: the Al of the scan that this one refines, or 0 for the first scan of a band.
    low_bit
        Al: how many bits are still to come, or the point transform of lossless JPEG.
    start, end
        Where the entropy-coded data lie in the codestream.
    """

    component_ids: tuple[int, ...]
    first: int
    last: int
    high_bit: int
    low_bit: int
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
    found: dict[int, tuple[bytes, int]] = {}
    scans: list[Scan] = []
    place = 2 if content[:2] == b"\xff\xd8" else len(content)
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xd9":
        marker = content[place + 1] if place + 1 < len(content) else _END
        if marker == 0xFF or marker in _STANDALONE_MARKERS:  # a fill byte, or no length follows
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segment = content[place + 4 : place + 2 + length]
        if (
            length < 2
            or len(segment) != length - 2
            or (marker == _SCAN and not found.keys() & _FRAME_MARKERS)
        ):
            break
        place += 2 + length
        if marker == _SCAN:
            scans.append(_scan(content, segment, place, lossless_ls=JPEG_LS in found))
            place = scans[-1].end
        elif marker not in _APPLICATION or segment.startswith(_APPLICATION[marker]):
            found[marker] = segment, place - len(segment)
    processes = found.keys() & _FRAME_MARKERS
    if not processes:
        raise no_header("JPEG")
    if content[place : place + 2] != b"\xff\xd9":
        raise truncated("JPEG", "the end marker is missing")
    if len(processes) > 1 or not scans:
        raise truncated("JPEG", "it must have one frame header and a scan after it")
    return _described(processes.pop(), found, tuple(scans))


def restart_places(content: bytes, scan: Scan) -> list[int]:
    """Return where each restart marker of a scan begins."""
    return [match.start() for match in _RESTART.finditer(content, scan.start, scan.end)]


def _described(process: int, found: dict[int, tuple[bytes, int]], scans: tuple[Scan, ...]) -> JpegStream:
    segment, at = found[process]
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise no_header("JPEG")
    precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
    described = [segment[6 + 3 * number : 9 + 3 * number] for number in range(components)]
    adobe, _ = found.get(_ADOBE, (b"", 0))
    interval, _ = found.get(_RESTART_INTERVAL, (b"", 0))
    return JpegStream(
        process=process,
        size=FrameSize(rows, columns, components, precision),
        rows_at=at + 1,
        component_ids=tuple(component[0] for component in described),
        sampling=tuple((component[1] >> 4, component[1] & 15) for component in described),
        jfif=_JFIF in found,
        adobe_transform=adobe[11] if len(adobe) >= 12 else None,
        restart_interval=int.from_bytes(interval[:2], "big"),
        scans=scans,
    )


def _scan(content: bytes, segment: bytes, start: int, *, lossless_ls: bool) -> Scan:
    if not segment or len(segment) < 4 + 2 * segment[0]:
        raise truncated("JPEG", "a scan header is cut")
    components = segment[0]
    first, last, bits = segment[1 + 2 * components : 4 + 2 * components]
    after = (_AFTER_ENTROPY_LS if lossless_ls else _AFTER_ENTROPY).search(content, start)
    if after is None:
        raise truncated("JPEG", "the end marker is missing")
    end = after.start()
    while end > start and content[end - 1] == 0xFF:  # fill bytes belong to the marker
        end -= 1
    return Scan(tuple(segment[1 : 1 + 2 * components : 2]), first, last, bits >> 4, bits & 15, start, end)
