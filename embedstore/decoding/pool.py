"""Decoding in processes with memory and time limits: a file that kills or stalls its decoder fails alone.

A thread in the parent hands jobs to the processes and collects replies, so they stay busy while the
consumer computes. Each process holds one job in work and one in waiting; replies come in that order, so
when a process dies, the oldest job without a reply is the one that killed it. That file is refused and
never tried again; the job that waited behind it is innocent and goes to another process.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, cast

from embedstore.decoding.decode import DecodeJob, DecodeLimits, EncoderInput
from embedstore.decoding.dispatch import Board, DecoderFailed, Dispatcher, Ticket
from embedstore.decoding.grey_values import GreyValues
from embedstore.decoding.process import Outcome
from embedstore.errors import ImageRefused, UsageError
from embedstore.images.preprocess import PreprocessSpec
from embedstore.images.series_range import ValueCounts

__all__ = ["DecoderFailed", "DecoderPool"]


class DecoderPool:
    """Decodes in `workers` processes, in order; use it as a context manager.

    Parameters
    ----------
    spec
        How images become encoder inputs.
    workers
        Number of processes.
    limits
        What a file may cost; None for the defaults.
    """

    def __init__(self, spec: PreprocessSpec, *, workers: int, limits: DecodeLimits | None = None) -> None:
        if workers < 1:
            raise UsageError(f"workers must be at least 1; found {workers}")
        self.spec = spec
        self.workers = workers
        self.limits = limits or DecodeLimits()
        self._board: Board | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._board is not None:
            raise RuntimeError("a DecoderPool can be entered once at a time")
        woken, wake_up = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake_up, False)
        self._board = Board(wake_up)
        dispatcher = Dispatcher(self._board, woken, spec=self.spec, limits=self.limits, workers=self.workers)
        self._thread = threading.Thread(target=dispatcher.run, name="decoder-pool", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is None or self._thread is None:
            return
        board, thread = self._board, self._thread
        self._board = self._thread = None
        board.close()
        thread.join()
        os.close(board.wake_up)

    def decode(self, jobs: Iterable[DecodeJob], *, ahead: int) -> Iterator[EncoderInput | ImageRefused]:
        """Yield one outcome for each job, in the order of jobs.

        Parameters
        ----------
        jobs
            Pulled one by one in the consumer's thread, at most `ahead` beyond the outcome being consumed.
        ahead
            How many images may be decoded while the consumer computes; a few per worker keep all busy.

        Raises
        ------
        DecoderFailed
            If processes cannot be started, or `decode` met a defect of this program.
        """
        return cast(Iterator[EncoderInput | ImageRefused], self._outcomes("decode", jobs, ahead))

    def count_values(self, jobs: Iterable[DecodeJob], *, ahead: int) -> Iterator[ValueCounts | ImageRefused]:
        """Yield the value counts of each job's frame, in the order of jobs; otherwise as `decode`."""
        return cast(Iterator[ValueCounts | ImageRefused], self._outcomes("count", jobs, ahead))

    def grey_values(self, jobs: Iterable[DecodeJob], *, ahead: int) -> Iterator[GreyValues | ImageRefused]:
        """Yield the grey values of each job's frame, in the order of jobs; otherwise as `decode`."""
        return cast(Iterator[GreyValues | ImageRefused], self._outcomes("grey", jobs, ahead))

    def process_ids(self) -> tuple[int, ...]:
        """Return the ids of the processes that are ready, for monitoring."""
        if self._board is None:
            return ()
        with self._board.changed:
            return self._board.process_ids

    def _outcomes(self, operation: str, jobs: Iterable[DecodeJob], ahead: int) -> Iterator[Outcome]:
        if ahead < 0:
            raise UsageError(f"ahead must be 0 or more; found {ahead}")
        if self._board is None:
            raise RuntimeError("a DecoderPool decodes inside its with block")
        return _in_order(self._board, operation, iter(jobs), ahead)


def _in_order(board: Board, operation: str, jobs: Iterator[DecodeJob], ahead: int) -> Iterator[Outcome]:
    waiting: deque[Ticket] = deque()
    try:
        while True:
            while len(waiting) <= ahead and (job := next(jobs, None)) is not None:
                waiting.append(Ticket(operation, job))
                board.submit(waiting[-1])
            if not waiting:
                return
            yield board.await_outcome(waiting.popleft())
    finally:
        with board.changed:
            for ticket in waiting:
                ticket.cancelled = True
