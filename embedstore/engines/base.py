"""What an engine is given and what it returns: whole units, so that any worker does any unit alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedstore.errors import Reason
from embedstore.manifest import Record


@dataclass(frozen=True)
class UnitWork:
    """Rows of one unit that need a vector.

    Parameters
    ----------
    part, unit
        Numbers.
    rows
        Rows of the part to compute, ascending; the whole unit, or its failed rows when these are retried.
    records
        One record per row.
    series_ranges
        Value range of each MR series among the records.
    """

    part: int
    unit: int
    rows: tuple[int, ...]
    records: tuple[Record, ...]
    series_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitVectors:
    """What became of the rows of a `UnitWork`.

    Parameters
    ----------
    work
        The work this answers.
    vectors
        (len(work.rows), dim) float32; NaN where the row failed.
    content
        (len(work.rows), 32) uint8; zero where the row failed.
    failures
        ``{row of the part: (reason, message)}``.
    seconds
        Time that the unit took.
    """

    work: UnitWork
    vectors: npt.NDArray[np.float32]
    content: npt.NDArray[np.uint8]
    failures: Mapping[int, tuple[Reason, str]]
    seconds: float


@dataclass
class Stopwatch:
    """Seconds that the encoder's thread spent waiting for pixels, encoding, and waiting for the disk."""

    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0

    def bound(self) -> str:
        """Name what took longest: ``decode``, ``encoder`` or ``writer``."""
        spent = {"decode": self.decode_s, "encoder": self.encode_s, "writer": self.write_s}
        return max(spent, key=lambda name: spent[name])
