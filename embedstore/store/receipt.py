"""What a receipt says: that a chunk is finished, what its bytes are, and how its rows were made."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from embedstore.errors import Reason
from embedstore.files import DIGEST_BYTES, FileState
from embedstore.store.layout import CONTENT


@dataclass(frozen=True)
class Failure:
    """A row without a vector: its place in the part, the reason code, and a line for people."""

    row: int
    reason: Reason
    message: str


@dataclass(frozen=True)
class ArrayDigest:
    """What a receipt says of one array's rows.

    Parameters
    ----------
    sha256
        Digest of the bytes of the rows that have a vector, in row order, little-endian.
    crc32c
        CRC-32C of the same bytes; cheap enough to be checked at every load.
    rounding_error
        Largest absolute difference between a computed value and the stored one.
    """

    sha256: str
    crc32c: int
    rounding_error: float


# Size in bytes (-1 where there was no file, -2 where nothing is known), time of modification in ns, beginning of the
# SHA-256: 32 bytes a row.
_SOURCE = struct.Struct(f"<qq{DIGEST_BYTES}s")
_NO_DIGEST = bytes(DIGEST_BYTES)
_UNKNOWN = FileState(-2, 0)


# Stands in the name of a series' range between the series and the kind of its values; in no identifier.
KIND_MARK = "\t"


def series_of(range_name: str) -> str:
    """Return the series id in a range's name."""
    return range_name.partition(KIND_MARK)[0]


def pack_sources(files: Sequence[FileState | None]) -> str:
    """Return how files were as base64, for `Receipt.sources`: a receipt is parsed at every opening of its store."""
    known = [file or _UNKNOWN for file in files]
    packed = b"".join(_SOURCE.pack(file.size, file.mtime_ns, file.digest or _NO_DIGEST) for file in known)
    return base64.b64encode(packed).decode()


def unpack_sources(text: str, rows: int) -> list[FileState | None]:
    """Undo `pack_sources`; nothing is known of `rows` files where the text is empty. Raises ValueError."""
    if not text:
        return [None] * rows
    packed = base64.b64decode(text, validate=True)
    if len(packed) != rows * _SOURCE.size:
        raise ValueError(f"sources must hold {rows} files; found {len(packed)} bytes")
    found = (
        FileState(size, mtime_ns, b"" if digest == _NO_DIGEST else digest)
        for size, mtime_ns, digest in _SOURCE.iter_unpack(packed)
    )
    return [None if file == _UNKNOWN else file for file in found]


@dataclass(frozen=True)
class Receipt:
    """Proof that a chunk is finished.

    Parameters
    ----------
    chunk
        Number of the chunk in its part.
    start, stop
        Rows of the part, `stop` excluded.
    arrays
        Array -> what its bytes are; every array of the part.
    content_sha256
        Digest of the content bytes of the rows that have a vector, in row order.
    failures
        The rows without a vector.
    series_ranges
        Values that became 0 and 255, for each MR series with a row in this chunk.
    notes
        Code of `errors.Note` -> rows, ascending; not mentioned where there is none.
    sources
        How each row's file was when it was read, packed by `pack_sources`; empty for a receipt from before they were
        kept.
    seconds, finished, host, device, versions
        Circumstances: they vary between runs and say nothing about the vectors.
    """

    chunk: int
    start: int
    stop: int
    arrays: Mapping[str, ArrayDigest]
    content_sha256: str
    failures: tuple[Failure, ...]
    series_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sources: str = ""
    seconds: float = 0.0
    finished: str = ""
    host: str = ""
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    CIRCUMSTANCES = ("sources", "seconds", "finished", "host", "device", "versions")

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as plain JSON values."""
        document = asdict(self) | {
            "failures": [asdict(failure) for failure in self.failures],
            "series_ranges": {name: list(limits) for name, limits in self.series_ranges.items()},
        }
        notes = {code: list(rows) for code, rows in document.pop("notes").items()}
        sources = document.pop("sources")
        return document | ({"notes": notes} if notes else {}) | ({"sources": sources} if sources else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Build a receipt from `to_json`; raises KeyError, TypeError or ValueError if damaged."""
        failures = tuple(
            Failure(int(entry["row"]), Reason(entry["reason"]), str(entry["message"]))
            for entry in document["failures"]
        )
        ranges = {name: (float(low), float(high)) for name, (low, high) in document["series_ranges"].items()}
        arrays = {name: ArrayDigest(**entry) for name, entry in document["arrays"].items()}
        notes = {code: tuple(map(int, rows)) for code, rows in document.get("notes", {}).items()}
        read = {"arrays": arrays, "failures": failures, "series_ranges": ranges, "notes": notes}
        return cls(**{**document, **read})

    @property
    def files(self) -> list[FileState | None]:
        """How each row's file was when it was read; None where that is not known, `ABSENT` where there was none.

        Raises
        ------
        ValueError
            If `sources` is not what `pack_sources` made for these rows.
        """
        return unpack_sources(self.sources, self.stop - self.start)

    @property
    def failed(self) -> list[int]:
        """Places within the chunk, from 0, of the rows without a vector."""
        return [failure.row - self.start for failure in self.failures]

    def sha256_of(self, name: str) -> str:
        """Return the digest of an array's bytes, the content's among them."""
        return self.content_sha256 if name == CONTENT else self.arrays[name].sha256
