"""What an extraction is asked, whom it tells, and what it says at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from embedstore.decoding.decode import DecodeLimits
from embedstore.extraction.shard import WHOLE, Shard
from embedstore.manifest import Manifest
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.store.reader import FAILED, PENDING, VALID, Store, open_store


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract; none of these changes a vector.

    Parameters
    ----------
    chunk_rows
        Rows of a chunk in a newly planned part; None for about 16 MiB of its largest array, 256 rows at most.
    store_dtype
        ``float16`` or ``float32`` for a newly planned part.
    batch_size
        Images per forward pass.
    workers
        Decoding processes.
    limits
        What a file may cost before it is refused.
    limit
        Plan at most the first so many records of the data set; None for all.
    shard
        Do this share of the chunks only, while other processes do others; None to have the store alone.
    """

    chunk_rows: int | None = None
    store_dtype: str = "float16"
    batch_size: int = 32
    workers: int = 2
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    limit: int | None = None
    shard: Shard | None = None


@dataclass(frozen=True)
class Progress:
    """Where an extraction stands.

    Parameters
    ----------
    done, total
        Images of this run.
    failed
        Images of this run without a vector so far.
    chunks_done, chunks_total
        Chunks of this run.
    images_per_s
        Average over this run.
    """

    done: int
    total: int
    failed: int
    chunks_done: int
    chunks_total: int
    images_per_s: float

    @property
    def eta_s(self) -> float:
        """Seconds left at the average speed; infinite before the first chunk."""
        return (self.total - self.done) / self.images_per_s if self.images_per_s else float("inf")


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did and how the store stands for this data set.

    Parameters
    ----------
    images
        Records of the data set that were asked for; of a shard, those in its chunks.
    valid, pending
        Those with a vector, and those that still wait for one.
    failed
        Reason -> number of those that failed.
    computed
        Images that this run computed or tried.
    seconds
        Time of this run.
    stopwatch
        Where the workers spent it.
    interrupted
        Whether the run was asked to stop before it was through.
    """

    images: int
    valid: int
    pending: int
    failed: Mapping[str, int]
    computed: int
    seconds: float
    stopwatch: Stopwatch
    interrupted: bool

    @property
    def failed_share(self) -> float:
        """Failed images among those tried so far, 0 to 1."""
        tried = self.valid + sum(self.failed.values())
        return sum(self.failed.values()) / tried if tried else 0.0


@dataclass(frozen=True)
class Observer:
    """Who watches an extraction, and who may stop it.

    Parameters
    ----------
    say
        Receives lines for people.
    progress
        Receives the state after every chunk.
    stopping
        Asked between batches; when true, the chunk at hand is abandoned and the run ends.
    """

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[Progress], None] = lambda state: None
    stopping: Callable[[], bool] = lambda: False


@dataclass
class Work:
    """What a run has done so far."""

    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    computed: int = 0
    interrupted: bool = False

    def add(self, other: ExtractSummary) -> None:
        """Add what another process did."""
        self.computed += other.computed
        self.interrupted = self.interrupted or other.interrupted
        self.stopwatch.add(other.stopwatch)


def summarise(
    store_path: Path, wanted: Manifest, shard: Shard | None, work: Work, *, seconds: float
) -> ExtractSummary:
    """Return how the store stands for the records of `wanted` after `work`."""
    store = open_store(store_path)
    asked = np.asarray(
        pc.is_in(store.table.column("image_id"), value_set=wanted.table.column("image_id").combine_chunks())
    )
    rows = np.flatnonzero(asked & _share_of_rows(store, shard or WHOLE))
    status = store.status[rows]
    failed: dict[str, int] = {}
    inside = set(rows[status == FAILED].tolist())
    for failure in store.failures:
        if failure.row in inside:
            failed[failure.reason.value] = failed.get(failure.reason.value, 0) + 1
    return ExtractSummary(
        images=len(rows),
        valid=int((status == VALID).sum()),
        pending=int((status == PENDING).sum()),
        failed=dict(sorted(failed.items())),
        computed=work.computed,
        seconds=seconds,
        stopwatch=work.stopwatch,
        interrupted=work.interrupted,
    )


def _share_of_rows(store: Store, shard: Shard) -> npt.NDArray[np.bool_]:
    chunks = [np.arange(part.plan.rows) // part.plan.chunk_rows for part in store.parts]
    numbers = np.concatenate([np.zeros(0, np.int64), *chunks])
    return np.asarray(numbers % shard.count == shard.number - 1)
