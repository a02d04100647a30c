"""The loop of one worker: decode, encode and commit whole chunks, one being written while the next is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter
from types import TracebackType
from typing import Self

from embedstore.datasets.base import Collection
from embedstore.decoding.pool import DecoderPool
from embedstore.encoders.base import Encoder
from embedstore.extraction.options import ExtractOptions
from embedstore.extraction.pending import PendingChunk, whole_chunk
from embedstore.files import ABSENT, FileState, digested
from embedstore.keys.quiet_messages import without_values
from embedstore.manifest import path_from_manifest
from embedstore.pipeline.batch_check import BatchCheck
from embedstore.pipeline.canary import embed_again
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.pipeline.run_chunks import run_chunks
from embedstore.pipeline.series_ranges import SeriesRanges, series_members, with_series_ranges
from embedstore.store.commit import ChunkResult, ChunkWriter
from embedstore.store.reader import Store
from embedstore.store.receipt import Receipt


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
    store
        The store as it is; a few of its images are embedded again on entry, and what came of it is said.
    options
        Batch size, decoding processes and what a file may cost.
    say
        Receives lines for people.

    Raises
    ------
    StoreError
        On entry, if this machine no longer makes the vectors that the store holds.
    """

    def __init__(
        self,
        collection: Collection,
        encoder: Encoder,
        writer: ChunkWriter,
        *,
        store: Store,
        options: ExtractOptions,
        say: Callable[[str], None],
    ) -> None:
        self.collection = collection
        self.encoder = encoder
        self.writer = writer
        self.store = store
        self.options = options
        self.say = say
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
            self._require_same_vectors()
            self._resources = opening.pop_all()
        self._ranges = SeriesRanges(
            root=self.collection.root,
            members=series_members(self.collection.images.records()),
            mri_range=spec.mri_range,
            decoder=self._decoder,
            known=dict(self.store.series_ranges()),
        )
        return self

    def _require_same_vectors(self) -> None:
        canary = embed_again(
            self.store,
            self.collection.manifest,
            self.collection.root,
            self.encoder,
            self._decoder,
            versions=self.writer.versions,
            images=self.collection.images,
        )
        canary.require(f"store {self.store.path}")
        if canary.line:
            self.say(canary.line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def run(
        self,
        pending: Iterable[PendingChunk],
        *,
        stopping: Callable[[], bool],
        stopwatch: Stopwatch,
        advance: Callable[[int], None] = lambda images: None,
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
        advance
            Receives how many images more have a vector or a reason, before their chunk is committed.
        """
        started = perf_counter()
        stopwatch.on_gpu = stopwatch.on_gpu or self.encoder.device.startswith("cuda")
        try:
            yield from self._committed(pending, stopping=stopping, stopwatch=stopwatch, advance=advance)
        finally:
            stopwatch.wall_s += perf_counter() - started

    def _committed(
        self,
        pending: Iterable[PendingChunk],
        *,
        stopping: Callable[[], bool],
        stopwatch: Stopwatch,
        advance: Callable[[int], None],
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
            advance=advance,
            stream_of=self._batch_check.open_stream,
        )
        # A second finished chunk waits until the first is written, so that memory stays bounded.
        waiting: tuple[PendingChunk, Future[Receipt]] | None = None
        for work, computed in outputs:
            entry = by_place[work.part, work.chunk]
            if waiting is not None:
                yield _finished(*waiting, stopwatch)
            waiting = entry, self._writing.submit(self._commit, entry, computed)
        if waiting is not None:
            yield _finished(*waiting, stopwatch)

    def _commit(self, entry: PendingChunk, computed: ChunkResult) -> Receipt:
        """Digest the chunk's files, which were read a moment ago, and commit it; in the writing thread."""
        result = whole_chunk(entry, self._kept(entry, computed))
        return self.writer.commit(entry.plan, entry.work.chunk, result)

    def _kept(self, entry: PendingChunk, computed: ChunkResult) -> ChunkResult:
        """Return what may be written: where paths are hidden, messages without what the files say, and no times."""
        root, kept_state = self.collection.root, self.collection.kept_state

        @cache  # several crops, or frames, are of one file
        def as_kept(path: str, file: FileState) -> FileState:
            return kept_state(digested(str(path_from_manifest(root, path)), file))

        files: list[FileState | None] = [
            as_kept(record.path, file) if file and file != ABSENT else file
            for record, file in zip(entry.work.records, computed.sources, strict=True)
        ]
        kept = replace(computed, sources=tuple(files))
        if not self.collection.hides_paths:
            return kept
        told = {row: (reason, without_values(message)) for row, (reason, message) in kept.failures.items()}
        return replace(kept, failures=told)


def _finished(entry: PendingChunk, future: Future[Receipt], stopwatch: Stopwatch) -> FinishedChunk:
    started = perf_counter()
    receipt = future.result()
    stopwatch.write_s += perf_counter() - started
    tried = frozenset(entry.work.rows)
    failed = sum(failure.row in tried for failure in receipt.failures)
    return FinishedChunk(entry.work.part, len(tried), failed, receipt)
