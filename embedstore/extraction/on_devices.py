"""More than one device of this machine: one process per device, each doing its share of the chunks."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

from embedstore.errors import EmbedError, UsageError
from embedstore.extraction.extract import Extraction, InProcess
from embedstore.extraction.options import Choose
from embedstore.extraction.progress import Observer, RunningTotal
from embedstore.extraction.worker import FinishedChunk
from embedstore.pipeline.chunk_work import Stopwatch
from embedstore.store.reader import Store
from embedstore.store.writer import join_writers

ALL_DEVICES = "all"
_POLL_S = 0.1
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class WorkerFailed(EmbedError):
    """A device's process ended without a result; nothing that was committed is affected."""


def device_names(text: str) -> tuple[str, ...]:
    """Return the devices that a name stands for: one, several with commas between, or ``all`` CUDA devices.

    Raises
    ------
    UsageError
        If a name is empty or a CUDA device is named twice, or ``all`` finds none.
    """
    if text == ALL_DEVICES:
        return _cuda_devices()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"device must name devices with commas between, cuda:0,cuda:1; found {text!r}")
    twice = sorted({name for name in names if name != "cpu" and names.count(name) > 1})
    if twice:
        raise UsageError(f"device names {twice[0]} twice in {text!r}; one process has it to itself")
    if len(names) > 1 and "auto" in names:
        raise UsageError(f"device 'auto' is one device; name them, or use 'all': found {text!r}")
    return names


@dataclass(frozen=True)
class OnDevices:
    """Compute on several devices of this machine, in one process per device.

    Parameters
    ----------
    devices
        Their names; decoding processes are divided among them.
    """

    devices: tuple[str, ...]

    def execute(self, extraction: Extraction, choose: Choose, total: RunningTotal) -> Store:
        """Do what `Executor.execute` says; an error is raised after the other devices have finished their shares."""
        encoder = extraction.build(device=self.devices[0])
        encoder.report_to(total.notice)
        identity = encoder.identity
        store = extraction.ensure_planned(identity)
        pending = extraction.pending(store, choose, lambda line: None)
        if pending:
            total.begin(pending)
            say, worker = extraction.observer.say, extraction.shard.name
            with join_writers(extraction.store_path, identity, worker=worker, say=say):
                self._run_processes(extraction, choose, total)
        return store

    def _run_processes(self, extraction: Extraction, choose: Choose, total: RunningTotal) -> None:
        # A fresh interpreter per device: a forked one would share the parent's threads and CUDA state.
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        children: list[_Child] = []
        workers = max(1, extraction.options.workers // len(self.devices))
        try:
            for device, share in zip(self.devices, extraction.shard.split(len(self.devices)), strict=True):
                options = replace(extraction.options, shard=share, workers=workers)
                theirs = replace(extraction, options=options, observer=Observer())
                children.append(_started(context, theirs, choose, device, stop))
            _Listener(children, extraction.observer, total).listen(stop)
        finally:
            for child in children:
                child.close()
        for child in children:
            if child.error is not None:
                raise child.error


@dataclass(frozen=True)
class _Ended:
    """The last message of a device's process that was not lost."""

    stopwatch: Stopwatch
    interrupted: bool


@dataclass
class _Child:
    """A device's process, this end of the pipe, and how it ended."""

    device: str
    process: BaseProcess
    pipe: Connection
    ended: bool = False
    error: Exception | None = None

    def close(self) -> None:
        """Wait for the process to end; kill it if it has not said that it does."""
        if self.process.is_alive() and not self.ended and self.error is None:
            self.process.kill()  # it ignores SIGTERM, and what it has committed is safe
        self.process.join()
        self.pipe.close()


@dataclass
class _Listener:
    """Passes on what the processes say, and adds up what they finish."""

    children: list[_Child]
    observer: Observer
    total: RunningTotal

    def listen(self, stop: Event) -> None:
        """Return when every process has ended; set `stop` when the observer asks to."""
        running = list(self.children)
        while running:
            if self.observer.stopping():
                stop.set()
            for pipe in wait([child.pipe for child in running], timeout=_POLL_S):
                child = next(child for child in running if child.pipe is pipe)
                try:
                    message = child.pipe.recv()
                except EOFError:
                    running.remove(child)
                    self._check_ending(child)
                    continue
                self._take(child, message)

    def _take(self, child: _Child, message: object) -> None:
        if isinstance(message, FinishedChunk):
            self.total.add([message])
        elif isinstance(message, _Ended):
            child.ended = True
            self.total.stopwatch.add(message.stopwatch)
            self.total.interrupted = self.total.interrupted or message.interrupted
        elif isinstance(message, Exception):
            child.error = message
            self.observer.say(f"{child.device}: {message}")
        else:
            self.total.notice(str(message), device=child.device)

    def _check_ending(self, child: _Child) -> None:
        child.process.join()
        if not child.ended and child.error is None:
            child.error = WorkerFailed(
                f"the process of device {child.device} ended with exit code {child.process.exitcode}. Its "
                "current chunk is abandoned, finished ones stay; run the same command again to continue"
            )
            self.observer.say(str(child.error))


def _started(
    context: SpawnContext, extraction: Extraction, choose: Choose, device: str, stop: Event
) -> _Child:
    """Start a device's process."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(extraction, choose, device, theirs, stop), name=f"embed {device}"
    )
    with _stop_signals_blocked():
        process.start()
    theirs.close()
    return _Child(device, process, ours)


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM; a process started meanwhile inherits the mask, until it ignores the signals.

    multiprocessing's resource tracker unblocks them when it starts, but the first `Event` has started it already.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(extraction: Extraction, choose: Choose, device: str, pipe: Connection, stop: Event) -> None:
    """Compute a share in a process of its own and send messages to the parent."""
    _ignore_stop_signals()
    parent = multiprocessing.parent_process()
    observer = Observer(
        say=pipe.send, stopping=lambda: stop.is_set() or parent is None or not parent.is_alive()
    )
    total = _RelayedTotal(observer, pipe)
    with suppress(BrokenPipeError):  # the parent has died, and nobody is left to tell
        try:
            InProcess(device).execute(replace(extraction, observer=observer), choose, total)
            pipe.send(_Ended(total.stopwatch, total.interrupted))
        except (EmbedError, OSError) as error:
            pipe.send(error)


class _RelayedTotal(RunningTotal):
    """The total of one device's process; the parent is told of every chunk, and adds up."""

    def __init__(self, observer: Observer, pipe: Connection) -> None:
        super().__init__(observer)
        self._pipe = pipe

    def add(self, chunks: Sequence[FinishedChunk]) -> None:
        """Count the chunks here and in the parent."""
        super().add(chunks)
        for chunk in chunks:
            self._pipe.send(chunk)


def _ignore_stop_signals() -> None:
    # A terminal's Ctrl-C and a scheduler's SIGTERM reach every process of the group; the parent alone reacts to
    # them. Ignoring also discards those that arrived since the process began.
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def _cuda_devices() -> tuple[str, ...]:
    # Reached by --device all only; everything else leaves torch to the encoder.
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UsageError("device 'all' means every CUDA device, and torch sees none. Use 'cpu'")
    return tuple(f"cuda:{index}" for index in range(count))
