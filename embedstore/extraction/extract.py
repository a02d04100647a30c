"""Phase one: plan what is missing, run an engine over it, commit chunk by chunk.

The same call continues an interrupted extraction, adds new images as a new part, and does nothing when
there is nothing to do; a finished store is recognised without loading the encoder or taking the lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from embedstore.datasets.base import Collection
from embedstore.encoders.base import Encoder
from embedstore.extraction.options import ExtractOptions, ExtractSummary, Observer, Progress, Work, summarise
from embedstore.extraction.pending import Chooser, PendingChunk, unfinished, unfinished_or_failed
from embedstore.extraction.plan import (
    ensure_planned,
    is_planned,
    library_versions,
    wanted_records,
    write_plan,
)
from embedstore.extraction.shard import WHOLE
from embedstore.extraction.worker import ChunkLoop
from embedstore.manifest import Manifest
from embedstore.store.commit import ChunkWriter
from embedstore.store.reader import open_store
from embedstore.store.writer import join_writers, open_writer

__all__ = ["ExtractOptions", "ExtractSummary", "Observer", "Progress", "extract", "retry_failed"]


def extract(
    collection: Collection,
    store_path: Path,
    encoder: Encoder,
    *,
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Bring the store, or a shard of it, up to date with the data set.

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
        If another process writes to the store, or does the same shard.
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
    choose: Chooser
    work: Work = field(default_factory=Work)

    def summary(self) -> ExtractSummary:
        """Do what is to be done and return how the store stands."""
        started = time.perf_counter()
        self.encoder.report_to(self.observer.say)
        wanted = wanted_records(self.collection, self.options)
        if not self._is_complete(wanted):
            with self._writer(wanted) as writer:
                pending = self._pending()
                if pending:
                    self._run(writer, pending)
        seconds = time.perf_counter() - started
        return summarise(self.store_path, wanted, self.options.shard, self.work, seconds=seconds)

    def _is_complete(self, wanted: Manifest) -> bool:
        return (
            is_planned(self.store_path, self.encoder.identity, self.collection, wanted)
            and not self._pending()
        )

    def _pending(self) -> list[PendingChunk]:
        return self.choose(
            open_store(self.store_path),
            self.collection.manifest,
            self.observer.say,
            shard=self.options.shard or WHOLE,
        )

    @contextmanager
    def _writer(self, wanted: Manifest) -> Iterator[ChunkWriter]:
        """Plan, and hold the store: alone, or as one of many workers."""
        say, identity = self.observer.say, self.encoder.identity
        if self.options.shard is None:
            with open_writer(self.store_path, identity, say=say, versions=library_versions()) as writer:
                write_plan(writer, self.collection, wanted, self.options)
                yield writer
            return
        ensure_planned(self.store_path, identity, self.collection, wanted, self.options, say=say)
        with join_writers(
            self.store_path, identity, worker=self.options.shard.name, say=say, versions=library_versions()
        ) as worker:
            yield worker

    def _run(self, writer: ChunkWriter, pending: list[PendingChunk]) -> None:
        """Compute and commit the pending chunks."""
        started = time.perf_counter()
        total = sum(len(entry.work.rows) for entry in pending)
        failed = chunks = 0
        with ChunkLoop(
            self.collection,
            self.encoder,
            writer,
            known=open_store(self.store_path).series_ranges(),
            options=self.options,
        ) as loop:
            for finished in loop.run(pending, stopping=self.observer.stopping, stopwatch=self.work.stopwatch):
                chunks, self.work.computed = chunks + 1, self.work.computed + finished.images
                failed += finished.failed
                speed = self.work.computed / (time.perf_counter() - started)
                self.observer.progress(
                    Progress(self.work.computed, total, failed, chunks, len(pending), speed)
                )
        self.work.interrupted = chunks < len(pending)
