"""What a receipt says: that a chunk is finished, what its bytes are, and how its rows were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from embedstore.errors import Reason
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
        Size in bytes and time of modification in ns of each row's file before it was read, or None where there was no
        file; empty for a receipt from before they were kept.
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
    sources: tuple[tuple[int, int] | None, ...] = ()
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
        sources = [source and list(source) for source in document.pop("sources")]
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
        sources = tuple(source and (int(source[0]), int(source[1])) for source in document.get("sources", ()))
        read = {
            "arrays": arrays,
            "failures": failures,
            "series_ranges": ranges,
            "notes": notes,
            "sources": sources,
        }
        return cls(**{**document, **read})

    @property
    def failed(self) -> list[int]:
        """Places within the chunk, from 0, of the rows without a vector."""
        return [failure.row - self.start for failure in self.failures]

    def sha256_of(self, name: str) -> str:
        """Return the digest of an array's bytes, the content's among them."""
        return self.content_sha256 if name == CONTENT else self.arrays[name].sha256
