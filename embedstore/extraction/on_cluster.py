"""An extraction on a Ray cluster: actors commit chunks into the shared folder, and the driver counts receipts."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedstore.datasets.base import Collection
from embedstore.encoders.base import Encoder
from embedstore.extraction.on_devices import EncoderSource
from embedstore.extraction.options import ExtractOptions, ExtractSummary, Observer, Progress, Work, summarise
from embedstore.extraction.pending import Chooser, PendingChunk, unfinished, unfinished_or_failed
from embedstore.extraction.plan import ensure_planned, library_versions, wanted_records
from embedstore.extraction.ray_crew import LOCAL, Crew, open_crew
from embedstore.extraction.shard import WHOLE
from embedstore.extraction.worker import ChunkLoop, FinishedChunk
from embedstore.identity import Identity
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.store.reader import open_store
from embedstore.store.worker_locks import living_workers
from embedstore.store.writer import clean_up_after_workers, join_writers

# The process of a lost actor may live on for moments, and holds its lock as long.
_GONE_S = 30.0
_POLL_S = 0.5


def extract_on_cluster(
    collection: Collection,
    store_path: Path,
    build: EncoderSource,
    *,
    address: str = LOCAL,
    device: str = "auto",
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Do what `embedstore.extraction.extract.extract` does with every device of a Ray cluster.

    Parameters
    ----------
    collection, options, observer
        As `extract`.
    store_path
        The store, under a path that every node shares.
    build
        Makes the encoder in each actor.
    address
        ``local``, ``auto`` or ``host:port``.
    device
        ``auto`` (every GPU, or every node if none has one), ``cpu`` or ``cuda``.

    Raises
    ------
    MissingDependency
        If Ray is not installed.
    EmbedError
        If no actor is left: the first error of one.
    """
    run = _ClusterRun(collection, store_path, build, options or ExtractOptions(), observer or Observer())
    return run.summary(unfinished, address=address, device=device)


def retry_failed_on_cluster(
    collection: Collection,
    store_path: Path,
    build: EncoderSource,
    *,
    address: str = LOCAL,
    device: str = "auto",
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Do what `embedstore.extraction.extract.retry_failed` does with every device of a Ray cluster."""
    run = _ClusterRun(collection, store_path, build, options or ExtractOptions(), observer or Observer())
    return run.summary(unfinished_or_failed, address=address, device=device)


@dataclass
class _ClusterRun:
    """One run, seen from the driver."""

    collection: Collection
    store_path: Path
    build: EncoderSource
    options: ExtractOptions
    observer: Observer
    work: Work = field(default_factory=Work)

    def summary(self, choose: Chooser, *, address: str, device: str) -> ExtractSummary:
        """Plan, hand out the chunks, and add up."""
        started = time.perf_counter()
        say, shard = self.observer.say, self.options.shard or WHOLE
        wanted = wanted_records(self.collection, self.options)
        recipe = _Recipe(self.collection, self.store_path.resolve(), self.build, self.options)
        name = f"ray-{secrets.token_hex(4)}"
        try:
            with open_crew(recipe, address=address, name=name, device=device, say=say) as crew:
                # An actor says it, because the driver may have no device of that kind, nor its arithmetic.
                identity: Identity = crew.describe()
                ensure_planned(self.store_path, identity, self.collection, wanted, self.options, say=say)
                pending = choose(open_store(self.store_path), self.collection.manifest, say, shard=shard)
                if pending:
                    with join_writers(self.store_path, identity, worker=f"ray-{shard.name}", say=say):
                        self._run(crew, pending)
        finally:
            # Whoever is told how this run ended may go on with the same store at once.
            self._await_lost(name)
            clean_up_after_workers(self.store_path, say=say)
        seconds = time.perf_counter() - started
        return summarise(self.store_path, wanted, self.options.shard, self.work, seconds=seconds)

    def _run(self, crew: Crew, pending: list[PendingChunk]) -> None:
        started = time.perf_counter()
        total = sum(len(entry.work.rows) for entry in pending)
        failed = chunks = 0
        said: set[str] = set()
        for report in crew.do(pending, stopping=self.observer.stopping):
            chunks += len(report.finished)
            failed += sum(chunk.failed for chunk in report.finished)
            self.work.computed += sum(chunk.images for chunk in report.finished)
            self.work.stopwatch.add(report.stopwatch)
            for notice in report.notices:
                # What holds for the weights comes from every actor of a host.
                if notice not in said:
                    said.add(notice)
                    self.observer.say(notice)
            speed = self.work.computed / (time.perf_counter() - started)
            self.observer.progress(Progress(self.work.computed, total, failed, chunks, len(pending), speed))
        self.work.interrupted = chunks < len(pending)

    def _await_lost(self, name: str) -> None:
        """Wait until no actor of the run `name` holds a lock; those that ended in good order hold none."""
        deadline = time.monotonic() + _GONE_S
        while living_workers(self.store_path, named=name) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


@dataclass(frozen=True)
class _Recipe:
    """Makes a chunk worker inside an actor."""

    collection: Collection
    store_path: Path
    build: EncoderSource
    options: ExtractOptions

    @contextmanager
    def __call__(self, *, name: str, device: str, cpus: int) -> Iterator[_ChunkWorker]:
        options = replace(self.options, workers=max(1, min(self.options.workers, cpus)))
        with ExitStack() as resources:
            yield _ChunkWorker(replace(self, options=options), name, self.build(device=device), resources)


@dataclass(frozen=True)
class _Report:
    """What an actor did with a few chunks, and its notices for people since the last report."""

    finished: list[FinishedChunk]
    stopwatch: Stopwatch
    notices: list[str]


@dataclass
class _ChunkWorker:
    """The local loop in an actor; the store is joined by the first piece of work, when it is planned."""

    recipe: _Recipe
    name: str
    encoder: Encoder
    resources: ExitStack
    loop: ChunkLoop | None = None
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen to the encoder; its notices travel with the next report."""
        self.encoder.report_to(lambda line: self.notices.append(f"{socket.gethostname()}: {line}"))

    def describe(self) -> Identity:
        """Return the identity of the vectors that this actor makes."""
        return self.encoder.identity

    def do(self, pieces: Sequence[PendingChunk], stopping: Callable[[], bool]) -> _Report:
        """Compute and commit chunks; return their receipts."""
        stopwatch = Stopwatch()
        finished = list(self._opened().run(pieces, stopping=stopping, stopwatch=stopwatch))
        notices, self.notices = self.notices, []
        return _Report(finished, stopwatch, notices)

    def _opened(self) -> ChunkLoop:
        if self.loop is None:
            recipe = self.recipe
            writer = self.resources.enter_context(
                join_writers(
                    recipe.store_path,
                    self.encoder.identity,
                    worker=self.name,
                    say=lambda line: None,
                    versions=library_versions(),
                )
            )
            self.loop = self.resources.enter_context(
                ChunkLoop(
                    recipe.collection,
                    self.encoder,
                    writer,
                    known=open_store(recipe.store_path).series_ranges(),
                    options=recipe.options,
                )
            )
        return self.loop
