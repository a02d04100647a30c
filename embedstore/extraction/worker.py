"""The loop of one worker: decode, encode and commit whole chunks, one being written while the next is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Self

from embedstore.datasets.base import Collection
from embedstore.decoding.pool import DecoderPool
from embedstore.encoders.base import Encoder
from embedstore.extraction.options import ExtractOptions
from embedstore.extraction.pending import PendingChunk, whole_chunk
from embedstore.keys.quiet_messages import without_values
from embedstore.pipeline.batch_check import BatchCheck
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.pipeline.run_chunks import run_chunks
from embedstore.pipeline.series_ranges import SeriesRanges, series_members, with_series_ranges
from embedstore.store.commit import ChunkResult, ChunkWriter
from embedstore.store.layout import Receipt


@dataclass(frozen=True)
class FinishedChunk:
    """A chunk that was committed.

    Parameters
    ----------
    part
        Number of its part.
    images
        Rows of it that this run computed or tried.
    failed
        Those of them without a vector.
    receipt
        Its receipt.
    """

    part: int
    images: int
    failed: int
    receipt: Receipt


class ChunkLoop:
    """Decoding processes and a writing thread around one encoder; use it as a context manager.

    Parameters
    ----------
    collection
        The data set; its records say where files lie and what belongs to an MR series.
    encoder
        The encoder; loaded on entry.
    writer
        Commits the chunks.
    known
        Ranges of MR series that the store holds already.
    options
        Batch size, decoding processes and what a file may cost.
    """

    def __init__(
        self,
        collection: Collection,
        encoder: Encoder,
        writer: ChunkWriter,
        *,
        known: Mapping[str, tuple[float, float]],
        options: ExtractOptions,
    ) -> None:
        self.collection = collection
        self.encoder = encoder
        self.writer = writer
        self.known = dict(known)
        self.options = options
        self._batch_check = BatchCheck()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self.encoder.load()
        spec, options = self.encoder.preprocess, self.options
        with ExitStack() as opening:
            self._decoder = opening.enter_context(
                DecoderPool(spec, workers=options.workers, limits=options.limits)
            )
            self._writing = opening.enter_context(ThreadPoolExecutor(1, thread_name_prefix="writer"))
            self._resources = opening.pop_all()
        self._ranges = SeriesRanges(
            root=self.collection.root,
            members=series_members(self.collection.manifest.records()),
            mri_range=spec.mri_range,
            decoder=self._decoder,
            known=self.known,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def run(
        self, pending: Iterable[PendingChunk], *, stopping: Callable[[], bool], stopwatch: Stopwatch
    ) -> Iterator[FinishedChunk]:
        """Compute and commit chunks in order.

        Parameters
        ----------
        pending
            The chunks.
        stopping
            Asked between batches; when true, the current chunk is abandoned and fewer come back.
        stopwatch
            Adds up where the time went.
        """
        started = perf_counter()
        stopwatch.on_gpu = stopwatch.on_gpu or self.encoder.device.startswith("cuda")
        try:
            yield from self._committed(pending, stopping=stopping, stopwatch=stopwatch)
        finally:
            stopwatch.wall_s += perf_counter() - started

    def _committed(
        self, pending: Iterable[PendingChunk], *, stopping: Callable[[], bool], stopwatch: Stopwatch
    ) -> Iterator[FinishedChunk]:
        by_place = {(entry.work.part, entry.work.chunk): entry for entry in pending}
        outputs = run_chunks(
            with_series_ranges((entry.work for entry in by_place.values()), self._ranges),
            root=self.collection.root,
            encoder=self.encoder,
            decoder=self._decoder,
            batch_size=self.options.batch_size,
            stopwatch=stopwatch,
            stopping=stopping,
            stream_of=self._batch_check.open_stream,
        )
        # A second finished chunk waits until the first is written, so that memory stays bounded.
        waiting: tuple[PendingChunk, Future[Receipt]] | None = None
        for work, computed in outputs:
            entry = by_place[work.part, work.chunk]
            result = whole_chunk(entry, self._kept(computed))
            if waiting is not None:
                yield _finished(*waiting, stopwatch)
            waiting = entry, self._writing.submit(self.writer.commit, entry.plan, entry.work.chunk, result)
        if waiting is not None:
            yield _finished(*waiting, stopwatch)

    def _kept(self, computed: ChunkResult) -> ChunkResult:
        """Return what may be written: where paths are hidden, messages without what the files say."""
        if not self.collection.hides_paths:
            return computed
        told = {
            row: (reason, without_values(message)) for row, (reason, message) in computed.failures.items()
        }
        return replace(computed, failures=told)


def _finished(entry: PendingChunk, future: Future[Receipt], stopwatch: Stopwatch) -> FinishedChunk:
    started = perf_counter()
    receipt = future.result()
    stopwatch.write_s += perf_counter() - started
    tried = frozenset(entry.work.rows)
    failed = sum(failure.row in tried for failure in receipt.failures)
    return FinishedChunk(entry.work.part, len(tried), failed, receipt)
