"""Phase one: plan what is missing, run an engine over it, commit unit by unit.

The same call continues an interrupted extraction, adds new images as a new part, and does nothing when
there is nothing to do; a finished store is recognised without loading the encoder or taking the lock.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from embedstore.datasets.base import Collection
from embedstore.encoders.base import Encoder
from embedstore.engines.base import Stopwatch, UnitVectors
from embedstore.engines.local import run_units
from embedstore.engines.series import SeriesRanges, series_members, with_series_ranges
from embedstore.images.decode import DecodeLimits
from embedstore.images.pool import DecoderPool
from embedstore.manifest import Manifest
from embedstore.pending import PendingUnit, unfinished, unfinished_or_failed, unit_result
from embedstore.store.layout import DEFAULT_CHUNK_ROWS, Receipt
from embedstore.store.reader import FAILED, PENDING, VALID, Store, open_store
from embedstore.store.tasks import holds_task, write_task
from embedstore.store.writer import StoreWriter, open_writer

_NOTED_LIBRARIES = ("embedstore", "numpy", "pillow", "pydicom", "torch", "zarr")


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract; none of these changes a vector.

    Parameters
    ----------
    chunk_rows
        Rows of a unit in a newly planned part.
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
    """

    chunk_rows: int = DEFAULT_CHUNK_ROWS
    store_dtype: str = "float16"
    batch_size: int = 32
    workers: int = 2
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    limit: int | None = None


@dataclass(frozen=True)
class Progress:
    """Where an extraction stands.

    Parameters
    ----------
    done, total
        Images of this run.
    failed
        Images of this run without a vector so far.
    units_done, units_total
        Units of this run.
    images_per_s
        Average over this run.
    """

    done: int
    total: int
    failed: int
    units_done: int
    units_total: int
    images_per_s: float

    @property
    def eta_s(self) -> float:
        """Seconds left at the average speed; infinite before the first unit."""
        return (self.total - self.done) / self.images_per_s if self.images_per_s else float("inf")


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did and how the store stands for this data set.

    Parameters
    ----------
    images
        Records of the data set that were asked for.
    valid, pending
        Those with a vector, and those that still wait for one.
    failed
        Reason -> number of those that failed.
    computed
        Images that this run computed or tried.
    seconds
        Time of this run.
    stopwatch
        Where the encoder's thread spent it.
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
        Receives the state after every unit.
    stopping
        Asked between batches; when true, the unit at hand is abandoned and the run ends.
    """

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[Progress], None] = lambda state: None
    stopping: Callable[[], bool] = lambda: False


def extract(
    collection: Collection,
    store_path: Path,
    encoder: Encoder,
    *,
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Bring the store up to date with the data set.

    Parameters
    ----------
    collection
        What a data set reader found.
    store_path
        The store; created if missing.
    encoder
        The encoder; loaded only if something is to be computed.
    options
        See `ExtractOptions`.
    observer
        See `Observer`.

    Raises
    ------
    IdentityMismatch
        If the store holds embeddings of another identity.
    StoreBusy
        If another process writes to the store.
    StoreError
        If the store cannot be used or written; what was committed before stays.
    """
    run = _Extraction(
        collection, store_path, encoder, options or ExtractOptions(), observer or Observer(), unfinished
    )
    return run.summary()


def retry_failed(
    collection: Collection,
    store_path: Path,
    encoder: Encoder,
    *,
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Bring the store up to date as `extract` does, and try the failed images again.

    Vectors that are there are not computed again: they are carried over from the store's own bytes.
    """
    run = _Extraction(
        collection,
        store_path,
        encoder,
        options or ExtractOptions(),
        observer or Observer(),
        unfinished_or_failed,
    )
    return run.summary()


@dataclass
class _Extraction:
    """One run: its inputs, and what it has done so far."""

    collection: Collection
    store_path: Path
    encoder: Encoder
    options: ExtractOptions
    observer: Observer
    choose: Callable[[Store, Manifest, Callable[[str], None]], list[PendingUnit]]
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    computed: int = 0
    interrupted: bool = False

    def summary(self) -> ExtractSummary:
        """Do what is to be done and return how the store stands."""
        started = time.perf_counter()
        wanted = Manifest(self.collection.manifest.table.slice(0, self.options.limit))
        if not self._is_complete(wanted):
            versions = _versions()
            with open_writer(
                self.store_path, self.encoder.identity, say=self.observer.say, versions=versions
            ) as writer:
                self._plan(writer, wanted)
                store = open_store(self.store_path)
                pending = self.choose(store, self.collection.manifest, self.observer.say)
                if pending:
                    self.encoder.load()
                    self._run(writer, pending, store.series_ranges())
        return _summary(self, wanted, time.perf_counter() - started)

    def _is_complete(self, wanted: Manifest) -> bool:
        if not (self.store_path / "store.json").exists():
            return False
        store = open_store(self.store_path)
        store.identity.require_same(self.encoder.identity, holder=f"store {self.store_path}")
        return (
            not len(_unknown(store, wanted))
            and not self.choose(store, self.collection.manifest, self.observer.say)
            and all(holds_task(self.store_path, task) for task in self.collection.tasks)
        )

    def _plan(self, writer: StoreWriter, wanted: Manifest) -> None:
        """Write the tasks, and plan a part for records that no part holds yet."""
        new = _unknown(open_store(writer.root), wanted)
        if len(new):
            writer.plan_part(
                new,
                dataset=self.collection.dataset,
                data_root=str(self.collection.root),
                chunk_rows=self.options.chunk_rows,
                dtype=self.options.store_dtype,
                tables=self.collection.tables,
            )
        for task in self.collection.tasks:
            write_task(writer.root, task)

    def _run(
        self, writer: StoreWriter, pending: list[PendingUnit], known: dict[str, tuple[float, float]]
    ) -> None:
        """Compute and commit the pending units."""
        started = time.perf_counter()
        total = sum(len(entry.work.rows) for entry in pending)
        failed = units = 0
        spec, options = self.encoder.preprocess, self.options
        with (
            DecoderPool(spec, workers=options.workers, limits=options.limits) as decoder,
            ThreadPoolExecutor(1, thread_name_prefix="writer") as writing,
        ):
            ranges = SeriesRanges(
                root=self.collection.root,
                members=series_members(self.collection.manifest.records()),
                mri_range=spec.mri_range,
                decoder=decoder,
                known=known,
            )
            outputs = run_units(
                with_series_ranges((entry.work for entry in pending), ranges),
                root=self.collection.root,
                encoder=self.encoder,
                decoder=decoder,
                batch_size=options.batch_size,
                stopwatch=self.stopwatch,
                stopping=self.observer.stopping,
            )
            by_place = {(entry.work.part, entry.work.unit): entry for entry in pending}
            for tried, receipt in self._committed(writing, writer, by_place, outputs):
                units, self.computed = units + 1, self.computed + len(tried)
                failed += sum(failure.row in tried for failure in receipt.failures)
                speed = self.computed / (time.perf_counter() - started)
                self.observer.progress(Progress(self.computed, total, failed, units, len(pending), speed))
        self.interrupted = units < len(pending)

    def _committed(
        self,
        writing: ThreadPoolExecutor,
        writer: StoreWriter,
        by_place: Mapping[tuple[int, int], PendingUnit],
        outputs: Iterator[UnitVectors],
    ) -> Iterator[tuple[frozenset[int], Receipt]]:
        """Commit outputs in a thread of its own; yield the rows that were tried, and the receipt.

        One unit is written while the next is computed; a second one waits, so that memory stays bounded.
        """
        waiting: tuple[frozenset[int], Future[Receipt]] | None = None
        for output in outputs:
            pending = by_place[output.work.part, output.work.unit]
            result = unit_result(pending, output, device=self.encoder.device)
            if waiting is not None:
                yield waiting[0], self._awaited(waiting[1])
            future = writing.submit(writer.commit, pending.plan, output.work.unit, result)
            waiting = frozenset(output.work.rows), future
        if waiting is not None:
            yield waiting[0], self._awaited(waiting[1])

    def _awaited(self, future: Future[Receipt]) -> Receipt:
        started = time.perf_counter()
        receipt = future.result()
        self.stopwatch.write_s += time.perf_counter() - started
        return receipt


def _unknown(store: Store, wanted: Manifest) -> Manifest:
    """Return the records of `wanted` that no part of the store holds."""
    if not store.parts:
        return wanted
    return wanted.without(store.table.column("image_id").combine_chunks())


def _summary(run: _Extraction, wanted: Manifest, seconds: float) -> ExtractSummary:
    store = open_store(run.store_path)
    asked = pc.is_in(
        store.table.column("image_id"), value_set=wanted.table.column("image_id").combine_chunks()
    )
    rows = np.flatnonzero(np.asarray(asked))
    status = store.status[rows]
    failed: dict[str, int] = {}
    inside = set(rows[status == FAILED].tolist())
    for failure in store.failures:
        if failure.row in inside:
            failed[failure.reason.value] = failed.get(failure.reason.value, 0) + 1
    return ExtractSummary(
        images=len(wanted),
        valid=int((status == VALID).sum()),
        pending=int((status == PENDING).sum()),
        failed=dict(sorted(failed.items())),
        computed=run.computed,
        seconds=seconds,
        stopwatch=run.stopwatch,
        interrupted=run.interrupted,
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _NOTED_LIBRARIES}}
