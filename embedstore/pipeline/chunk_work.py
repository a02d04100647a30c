"""What is computed at a time, whole chunks so that any worker does any of them alike, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from embedstore.images.crop import CropBox
from embedstore.manifest import Record


@dataclass(frozen=True)
class ChunkWork:
    """Rows of one chunk that need a vector.

    Parameters
    ----------
    part, chunk
        Numbers.
    rows
        Rows of the part to compute, ascending; the whole chunk, or its failed rows when these are retried.
    records
        One record per row.
    series_ranges
        Value range of each MR series among the records.
    """

    part: int
    chunk: int
    rows: tuple[int, ...]
    records: tuple[Record, ...]
    series_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def box_of(record: Record) -> CropBox | None:
    """Return the part of the image that a record is of; None for all of it."""
    return None if record.crop is None else CropBox(*record.crop)


@dataclass
class Stopwatch:
    """Where the time of one worker went; several are added up.

    Parameters
    ----------
    decode_s, encode_s, write_s
        Seconds that the encoder's thread spent waiting for pixels, handing batches to the encoder and
        waiting for their vectors, and waiting for the disk.
    busy_s
        Seconds that the device worked: by the clock around a pass on a CPU, by the device's own on CUDA.
    wall_s
        Seconds from the first chunk's beginning to the last one's receipt, of every worker.
    flops
        Floating-point operations of the pictures that were encoded; 0 for an encoder without a count.
    on_gpu
        Whether a CUDA device was among them.
    """

    decode_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    busy_s: float = 0.0
    wall_s: float = 0.0
    flops: float = 0.0
    on_gpu: bool = False

    def add(self, other: Stopwatch) -> None:
        """Add what another worker's shows."""
        self.decode_s += other.decode_s
        self.encode_s += other.encode_s
        self.write_s += other.write_s
        self.busy_s += other.busy_s
        self.wall_s += other.wall_s
        self.flops += other.flops
        self.on_gpu = self.on_gpu or other.on_gpu

    def bound(self) -> str:
        """Name what took longest: ``decode``, ``encoder`` or ``writer``."""
        spent = {"decode": self.decode_s, "encoder": self.encode_s, "writer": self.write_s}
        return max(spent, key=lambda name: spent[name])

    @property
    def idle_share(self) -> float | None:
        """Share of the time in which the devices waited, 0 to 1; None before anything ran."""
        if not self.wall_s:
            return None
        # The clocks of host and device are two: a device that never waits may seem busy for longer than all.
        return max(0.0, 1 - self.busy_s / self.wall_s)

    @property
    def tflops_per_s(self) -> float | None:
        """Speed of one device while it works, 10**12 operations per second; None without a count."""
        return self.flops / self.busy_s / 1e12 if self.flops and self.busy_s else None
