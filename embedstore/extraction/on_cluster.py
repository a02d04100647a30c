"""An extraction on a Ray cluster: actors commit chunks into a shared folder, and the driver collects receipts."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedstore.encoders.base import Encoder
from embedstore.extraction.extract import Extraction
from embedstore.extraction.options import Choose
from embedstore.extraction.pending import PendingChunk
from embedstore.extraction.plan import library_versions
from embedstore.extraction.progress import Observer, RunningTotal
from embedstore.extraction.ray_crew import LOCAL, Crew, open_crew
from embedstore.extraction.worker import ChunkLoop, FinishedChunk
from embedstore.identity import Identity
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.store.reader import Store, open_store
from embedstore.store.store_lock import living_workers
from embedstore.store.writer import clean_up_after_workers, join_writers

# The process of a lost actor may survive for moments, and holds its lock until then.
_GONE_S = 30.0
_POLL_S = 0.5


@dataclass(frozen=True)
class OnCluster:
    """Compute on every device of a Ray cluster; the store lies under a path that every node shares.

    Parameters
    ----------
    address
        ``local``, ``auto`` or ``host:port``.
    device
        ``auto`` (every GPU, or every node if none has one), ``cpu`` or ``cuda``.
    """

    address: str = LOCAL
    device: str = "auto"

    def execute(self, extraction: Extraction, choose: Choose, total: RunningTotal) -> Store:
        """Do what `Executor.execute` says; an error is raised only when no actor is left.

        Raises
        ------
        MissingDependency
            If Ray is not installed.
        EmbedError
            If no actor is left: the first error of one.
        """
        say, path = extraction.observer.say, extraction.store_path
        factory = WorkerFactory(replace(extraction, store_path=path.resolve(), observer=Observer()))
        name = f"ray-{secrets.token_hex(4)}"
        try:
            with open_crew(factory, address=self.address, name=name, device=self.device, say=say) as crew:
                # From an actor, because the driver may have no device of that kind, and so another arithmetic.
                identity: Identity = crew.describe()
                store = extraction.ensure_planned(identity)
                pending = extraction.pending(store, choose, total.notice)
                if pending:
                    with join_writers(path, identity, worker=f"ray-{extraction.shard.name}", say=say):
                        _hand_out(crew, pending, extraction.observer.stopping, total)
        finally:
            # The caller may use the same store as soon as this returns or raises.
            _await_lost(path, name)
            clean_up_after_workers(path, say=say)
        return store


def _hand_out(
    crew: Crew, pending: list[PendingChunk], stopping: Callable[[], bool], total: RunningTotal
) -> None:
    """Have the actors compute the pending chunks."""
    total.begin(pending)
    for report in crew.do(pending, stopping=stopping):
        total.stopwatch.add(report.stopwatch)
        for line in report.notices:
            total.notice(line)
        total.add(report.finished)
    total.end()


def _await_lost(store_path: Path, name: str) -> None:
    """Wait until no actor of the run `name` holds a lock; those that closed the store hold none."""
    deadline = time.monotonic() + _GONE_S
    while living_workers(store_path, named=name) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class WorkerFactory:
    """Makes a chunk worker inside an actor."""

    extraction: Extraction

    @contextmanager
    def __call__(self, *, name: str, device: str, cpus: int) -> Iterator[_ChunkWorker]:
        """Open a worker of this name on a device, with so many CPU cores to decode with."""
        options = self.extraction.options
        options = replace(options, workers=max(1, min(options.workers, cpus)))
        encoder = self.extraction.build(device=device)
        with ExitStack() as resources:
            yield _ChunkWorker(replace(self.extraction, options=options), name, encoder, resources)


@dataclass(frozen=True)
class _Report:
    """What an actor did with a few chunks, and its notices for people since the last report."""

    finished: list[FinishedChunk]
    stopwatch: Stopwatch
    notices: list[str]


@dataclass
class _ChunkWorker:
    """Computes chunks in an actor; joins the store with the first chunks, when it is planned."""

    extraction: Extraction
    name: str
    encoder: Encoder
    resources: ExitStack
    loop: ChunkLoop | None = None
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen to the encoder; its notices travel with the next report."""
        self.encoder.report_to(self._notice)

    def _notice(self, line: str) -> None:
        self.notices.append(f"{socket.gethostname()}: {line}")

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
            collection, path = self.extraction.collection, self.extraction.store_path
            writer = self.resources.enter_context(
                join_writers(
                    path,
                    self.encoder.identity,
                    worker=self.name,
                    say=lambda line: None,
                    versions=library_versions(),
                )
            )
            loop = ChunkLoop(
                collection,
                self.encoder,
                writer,
                store=open_store(path),
                options=self.extraction.options,
                say=self._notice,
            )
            self.loop = self.resources.enter_context(loop)
        return self.loop
