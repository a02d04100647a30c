"""What an extraction tells: its progress, added up over all workers, and its summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from embedstore.brief import Brief
from embedstore.extraction.pending import PendingChunk
from embedstore.extraction.shard import Shard
from embedstore.extraction.worker import FinishedChunk
from embedstore.manifest import Manifest
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.store.part_reader import notes_of
from embedstore.store.reader import FAILED, PENDING, VALID, Store
from embedstore.store.receipt import Receipt


@dataclass(frozen=True)
class Progress:
    """Where an extraction stands.

    Parameters
    ----------
    done, total
        Images of this run; those of a chunk that is under way count with each batch where the work is done in this
        process, and with their chunk elsewhere.
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


def _ignore(news: object) -> None:
    del news


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Observer:
    """Who watches an extraction, and who may stop it.

    Parameters
    ----------
    say
        Receives lines for people.
    progress
        Receives the state after every batch in this process, after every chunk elsewhere.
    stopping
        Asked between batches; when true, the current chunk is abandoned and the run ends.
    """

    # Functions with a name, because the default observer travels to other processes.
    say: Callable[[str], None] = _ignore
    progress: Callable[[Progress], None] = _ignore
    stopping: Callable[[], bool] = _never


@dataclass(frozen=True, repr=False)
class ExtractSummary(Brief):
    """What an extraction did and how the store stands for this data set.

    Parameters
    ----------
    images
        Records of the data set that were asked for; of a shard, those in its chunks.
    valid, pending
        Those with a vector, and those that still wait for one.
    failed
        Reason -> number of those that failed.
    notes
        What was mended or left out to show an image (code of `errors.Note`) -> number of images.
    computed
        Images that this run computed or tried.
    seconds
        Time of this run.
    stopwatch
        Where the workers spent it.
    interrupted
        Whether the run was asked to stop before it had finished.
    revised
        Column -> rows of the store whose cell is now what the data set says.
    """

    images: int
    valid: int
    pending: int
    failed: Mapping[str, int]
    notes: Mapping[str, int]
    computed: int
    seconds: float
    stopwatch: Stopwatch
    interrupted: bool
    revised: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed_share(self) -> float:
        """Failed images among those tried so far, 0 to 1."""
        tried = self.valid + sum(self.failed.values())
        return sum(self.failed.values()) / tried if tried else 0.0

    def _facts(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "valid": self.valid,
            "pending": self.pending,
            "failed": dict(self.failed),
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
        }


class RunningTotal:
    """What all workers of a run have done so far; tells the observer.

    Parameters
    ----------
    observer
        See `Observer`.

    Attributes
    ----------
    stopwatch
        Where the workers spent their time.
    finished
        The chunks that were committed.
    interrupted
        Whether a worker was asked to stop before it had finished its chunks.
    """

    def __init__(self, observer: Observer) -> None:
        self.stopwatch = Stopwatch()
        self.finished: list[FinishedChunk] = []
        self.interrupted = False
        self._observer = observer
        self._began = self._begun_work = time.perf_counter()
        self._images_done = self._images_failed = self._under_way = 0
        self._images = self._chunks = 0
        self._noticed: set[str] = set()

    def begin(self, pending: Sequence[PendingChunk]) -> None:
        """Set what is to be done; the average speed counts from here."""
        self._images = sum(len(entry.work.rows) for entry in pending)
        self._chunks = len(pending)
        self._begun_work = time.perf_counter()

    def advance(self, images: int) -> None:
        """Count images with a vector or a reason, of chunks that are not committed yet."""
        self._under_way += images
        self._show()

    def add(self, chunks: Sequence[FinishedChunk]) -> None:
        """Count chunks that a worker committed."""
        self.finished.extend(chunks)
        images = sum(chunk.images for chunk in chunks)
        self._images_done += images
        self._images_failed += sum(chunk.failed for chunk in chunks)
        # Of workers elsewhere nothing was under way.
        self._under_way = max(0, self._under_way - images)
        self._show()

    def _show(self) -> None:
        done = self._images_done + self._under_way
        self._observer.progress(
            Progress(
                done=done,
                total=self._images,
                failed=self._images_failed,
                chunks_done=len(self.finished),
                chunks_total=self._chunks,
                images_per_s=done / (time.perf_counter() - self._begun_work),
            )
        )

    def end(self) -> None:
        """Note that no worker goes on: what is not finished by now was interrupted."""
        self.interrupted = len(self.finished) < self._chunks

    def notice(self, line: str, *, device: str = "") -> None:
        """Say a line for people once; what holds for the weights comes from every worker.

        Parameters
        ----------
        line
            The line.
        device
            Whose notice it is; said before the line.
        """
        if line not in self._noticed:
            self._noticed.add(line)
            self._observer.say(f"{device}: {line}" if device else line)

    def summary(self, store: Store, wanted: Manifest, shard: Shard) -> ExtractSummary:
        """Return how the store stands now for the records of `wanted`.

        Parameters
        ----------
        store
            The store as it was before the run, with every record planned.
        wanted
            The records that were asked for.
        shard
            The share of the chunks that was asked for.
        """
        ids = wanted.table.column("image_id").combine_chunks()
        asked = np.asarray(pc.is_in(store.table.column("image_id"), value_set=ids))
        rows = np.flatnonzero(asked & _rows_of_shard(store, shard))
        # Each chunk that was committed came back with its receipt, so the store is not read again.
        after = _with_receipts(store, self.finished)
        status = after.status[rows]
        inside = set(rows[status == FAILED].tolist())
        failed: dict[str, int] = {}
        for failure in after.failures:
            if failure.row in inside:
                failed[failure.reason.value] = failed.get(failure.reason.value, 0) + 1
        return ExtractSummary(
            images=len(rows),
            valid=int((status == VALID).sum()),
            pending=int((status == PENDING).sum()),
            failed=dict(sorted(failed.items())),
            notes=_counted(notes_of(after.offsets()), set(rows.tolist())),
            computed=self._images_done,
            seconds=time.perf_counter() - self._began,
            stopwatch=self.stopwatch,
            interrupted=self.interrupted,
        )


def _counted(notes: Mapping[str, Sequence[int]], asked: set[int]) -> dict[str, int]:
    counts = {code: sum(row in asked for row in rows) for code, rows in notes.items()}
    return {code: count for code, count in counts.items() if count}


def _with_receipts(store: Store, finished: Sequence[FinishedChunk]) -> Store:
    """Return the store with the receipts of chunks that were committed since it was opened."""
    new: dict[int, dict[int, Receipt]] = {}
    for chunk in finished:
        new.setdefault(chunk.part, {})[chunk.receipt.chunk] = chunk.receipt
    parts = [
        replace(part, receipts={**part.receipts, **new.get(part.plan.number, {})}) for part in store.parts
    ]
    return replace(store, parts=tuple(parts))


def _rows_of_shard(store: Store, shard: Shard) -> npt.NDArray[np.bool_]:
    """Return which rows of the store lie in chunks of the shard, (rows,) bool."""
    chunks = [np.arange(part.plan.rows) // part.plan.chunk_rows for part in store.parts]
    numbers = np.concatenate([np.zeros(0, np.int64), *chunks])
    return np.asarray(numbers % shard.count == shard.number - 1)
