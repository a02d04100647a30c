"""More than one device of this machine: one process per device, each doing its share of the chunks."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Protocol

from embedstore.datasets.base import Collection
from embedstore.encoders.base import Encoder, report_to
from embedstore.errors import EmbedError, UsageError
from embedstore.extraction.extract import extract, retry_failed
from embedstore.extraction.options import ExtractOptions, ExtractSummary, Observer, Progress, Work, summarise
from embedstore.extraction.pending import Chooser, unfinished, unfinished_or_failed
from embedstore.extraction.plan import ensure_planned, wanted_records
from embedstore.extraction.shard import WHOLE
from embedstore.store.reader import open_store
from embedstore.store.writer import join_writers

ALL_DEVICES = "all"
_POLL_S = 0.1
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class WorkerFailed(EmbedError):
    """A device's process ended without a result; nothing that was committed is affected."""


class EncoderSource(Protocol):
    """Builds the same encoder for any device; travels to other processes by pickle."""

    def __call__(self, *, device: str) -> Encoder:
        """Return the encoder, not loaded yet."""
        ...


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


def extract_on_devices(
    collection: Collection,
    store_path: Path,
    build: EncoderSource,
    devices: Sequence[str],
    *,
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Do what `embedstore.extraction.extract.extract` does with one process per device.

    Parameters
    ----------
    collection, store_path, options, observer
        As `extract`; `options.workers` decoding processes are divided among the devices.
    build
        Makes the encoder in each process.
    devices
        Their names.

    Raises
    ------
    EmbedError
        The first error of a process, after the others have finished their shares.
    """
    run = _DeviceRun(
        collection, store_path, build, devices, options or ExtractOptions(), observer or Observer()
    )
    return run.summary(unfinished, extract)


def retry_failed_on_devices(
    collection: Collection,
    store_path: Path,
    build: EncoderSource,
    devices: Sequence[str],
    *,
    options: ExtractOptions | None = None,
    observer: Observer | None = None,
) -> ExtractSummary:
    """Do what `embedstore.extraction.extract.retry_failed` does with one process per device."""
    run = _DeviceRun(
        collection, store_path, build, devices, options or ExtractOptions(), observer or Observer()
    )
    return run.summary(unfinished_or_failed, retry_failed)


@dataclass
class _Child:
    """A device's process, its end of the pipe, and what it told last."""

    device: str
    process: BaseProcess
    pipe: Connection
    progress: Progress | None = None
    summary: ExtractSummary | None = None
    error: Exception | None = None


@dataclass
class _DeviceRun:
    """One run: its inputs."""

    collection: Collection
    store_path: Path
    build: EncoderSource
    devices: Sequence[str]
    options: ExtractOptions
    observer: Observer
    _said: set[str] = field(default_factory=set)

    def summary(self, choose: Chooser, run: Callable[..., ExtractSummary]) -> ExtractSummary:
        """Plan, hold the shard's name, let the processes work, and add up."""
        started = time.perf_counter()
        say, shard = self.observer.say, self.options.shard or WHOLE
        wanted = wanted_records(self.collection, self.options)
        encoder = self.build(device=self.devices[0])
        report_to(encoder, self._say_once)
        identity = encoder.identity
        ensure_planned(self.store_path, identity, self.collection, wanted, self.options, say=say)
        work = Work()
        if choose(open_store(self.store_path), self.collection.manifest, lambda line: None, shard=shard):
            with join_writers(self.store_path, identity, worker=shard.name, say=say):
                for child in self._finished_children(run):
                    if child.error is not None:
                        raise child.error
                    if child.summary is not None:
                        work.add(child.summary)
        seconds = time.perf_counter() - started
        return summarise(self.store_path, wanted, self.options.shard, work, seconds=seconds)

    def _finished_children(self, run: Callable[..., ExtractSummary]) -> list[_Child]:
        # A fresh interpreter per device: a forked one would share the parent's threads and CUDA state.
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        children: list[_Child] = []
        workers = max(1, self.options.workers // len(self.devices))
        shares = (self.options.shard or WHOLE).split(len(self.devices))
        try:
            for device, share in zip(self.devices, shares, strict=True):
                ours, theirs = context.Pipe(duplex=False)
                job = _Job(
                    self.collection,
                    self.store_path,
                    self.build,
                    device,
                    replace(self.options, shard=share, workers=workers),
                    run,
                )
                process = context.Process(target=_work, args=(job, theirs, stop), name=f"embed {device}")
                with _signals_waiting():
                    process.start()
                theirs.close()
                children.append(_Child(device, process, ours))
            self._listen(children, stop)
        finally:
            for child in children:
                if child.process.is_alive() and child.summary is None and child.error is None:
                    child.process.kill()  # it does not hear SIGTERM, and what it has committed is safe
                child.process.join()
                child.pipe.close()
        return sorted(children, key=lambda child: child.error is None)

    def _listen(self, children: list[_Child], stop: Event) -> None:
        """Pass on what the processes say until each has ended."""
        started = time.perf_counter()
        running = list(children)
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
                self._take(child, message, children, time.perf_counter() - started)

    def _take(self, child: _Child, message: object, children: list[_Child], seconds: float) -> None:
        if isinstance(message, Progress):
            child.progress = message
            self.observer.progress(_added_up([other.progress for other in children], seconds))
        elif isinstance(message, ExtractSummary):
            child.summary = message
        elif isinstance(message, Exception):
            child.error = message
            self.observer.say(f"{child.device}: {message}")
        else:
            self._say_once(str(message), device=child.device)

    def _say_once(self, line: str, *, device: str = "") -> None:
        """Say a notice; what holds for the weights would come from every process."""
        if line not in self._said:
            self._said.add(line)
            self.observer.say(f"{device}: {line}" if device else line)

    def _check_ending(self, child: _Child) -> None:
        child.process.join()
        if child.summary is None and child.error is None:
            child.error = WorkerFailed(
                f"the process of device {child.device} ended with exit code {child.process.exitcode}. Its chunk at "
                "hand is abandoned, finished ones stay; run the same command again to continue"
            )
            self.observer.say(str(child.error))


@dataclass(frozen=True)
class _Job:
    """What a device's process gets."""

    collection: Collection
    store_path: Path
    build: EncoderSource
    device: str
    options: ExtractOptions
    run: Callable[..., ExtractSummary]


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """Hold back signals that stop; a process started meanwhile holds them back until it ignores them.

    multiprocessing's resource tracker lets them through again when it starts, which the first `Event` made it do.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(job: _Job, pipe: Connection, stop: Event) -> None:
    """Do a share in a process of its own and tell the parent by messages."""
    _hear_the_parent_alone()
    parent = multiprocessing.parent_process()
    observer = Observer(
        say=pipe.send,
        progress=pipe.send,
        stopping=lambda: stop.is_set() or parent is None or not parent.is_alive(),
    )
    with suppress(BrokenPipeError):  # the parent is gone, and so is whoever wanted to know
        try:
            encoder = job.build(device=job.device)
            pipe.send(
                job.run(job.collection, job.store_path, encoder, options=job.options, observer=observer)
            )
        except (EmbedError, OSError) as error:
            pipe.send(error)


def _hear_the_parent_alone() -> None:
    # A terminal's Ctrl-C, and a scheduler's SIGTERM, reach every process of the group; the parent decides what
    # they mean. What came since the process began is forgotten with this.
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def _added_up(states: Sequence[Progress | None], seconds: float) -> Progress:
    known = [state for state in states if state is not None]
    done = sum(state.done for state in known)
    return Progress(
        done=done,
        total=sum(state.total for state in known),
        failed=sum(state.failed for state in known),
        chunks_done=sum(state.chunks_done for state in known),
        chunks_total=sum(state.chunks_total for state in known),
        images_per_s=done / seconds,
    )


def _cuda_devices() -> tuple[str, ...]:
    # Reached by --device all only; everything else leaves torch to the encoder.
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UsageError("device 'all' means every CUDA device, and torch sees none. Use 'cpu'")
    return tuple(f"cuda:{index}" for index in range(count))
