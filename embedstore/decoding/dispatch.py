"""The thread that keeps decoding processes busy and decides what the death of one means."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from embedstore.decoding.decode import DecodeJob, DecodeLimits
from embedstore.decoding.process import BrokenProcess, DecodingProcess, Outcome
from embedstore.decoding.worker import SLOTS
from embedstore.errors import EmbedError, ImageRefused, Reason
from embedstore.images.preprocess import PreprocessSpec

START_TIMEOUT_S = 120.0
_MAX_FRUITLESS_STARTS = 3
_END_TIMEOUT_S = 5.0
_NEVER = float("inf")


class DecoderFailed(EmbedError):
    """Decoding processes cannot be started, or the program has a defect; no image is to blame."""


@dataclass(eq=False)
class Ticket:
    """One job on its way; `outcome` is set once."""

    operation: str
    job: DecodeJob
    outcome: Outcome | DecoderFailed | None = None
    cancelled: bool = False

    @property
    def picture(self) -> tuple[str, int] | None:
        """The picture that a crop is of: its further crops are best decoded by the process that has it."""
        return self.job.picture if self.operation == "decode" else None


@dataclass(eq=False)
class Board:
    """What consumers and the dispatcher share; every field below `changed` is read and written under it."""

    wake_up: int
    changed: threading.Condition = field(default_factory=threading.Condition)
    queue: deque[Ticket] = field(default_factory=deque)
    hungry: bool = False  # a process has a free place and the queue was empty: the next ticket must wake
    process_ids: tuple[int, ...] = ()
    closing: bool = False
    failure: DecoderFailed | None = None

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket for the dispatcher; raises as `await_outcome`."""
        with self.changed:
            self._raise_if_over()
            self.queue.append(ticket)
            if self.hungry:  # else the dispatcher will look at the queue when the next reply comes
                self.hungry = False
                self._wake()

    def close(self) -> None:
        """Ask the dispatcher to end."""
        with self.changed:
            self.closing = True
            self._wake()

    def await_outcome(self, ticket: Ticket) -> Outcome:
        """Wait until the ticket is settled.

        Raises
        ------
        DecoderFailed
            If the pool has failed, or the program met a defect of its own with this job.
        RuntimeError
            If the pool is closed first.
        """
        with self.changed:
            while ticket.outcome is None:
                self._raise_if_over()
                self.changed.wait()
        if isinstance(ticket.outcome, DecoderFailed):
            raise ticket.outcome
        return ticket.outcome

    def _raise_if_over(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.closing:
            raise RuntimeError("the DecoderPool was closed before all its images were decoded")

    def _wake(self) -> None:
        # A full pipe means that a wake-up is already on its way; a broken one, that the thread has ended.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self.wake_up, b".")


@dataclass(eq=False)
class _Member:
    """A process and what it has been sent, oldest first."""

    process: DecodingProcess
    deadline: float
    ready: bool = False
    sent: deque[tuple[Ticket, int]] = field(default_factory=deque)
    picture: tuple[str, int] | None = None  # of the last crop that it was sent


class Dispatcher:
    """Hands tickets to processes and settles them; `run` is the thread's whole life.

    Parameters
    ----------
    board
        Shared with the consumers.
    woken
        Read end of the pipe behind ``board.wake_up``; closed at the end.
    spec, limits, workers
        As in `DecoderPool`.
    """

    def __init__(
        self, board: Board, woken: int, *, spec: PreprocessSpec, limits: DecodeLimits, workers: int
    ) -> None:
        self._board = board
        self._woken = woken
        self._spec = spec
        self._limits = limits
        self._workers = workers
        self._members: list[_Member] = []
        self._selector = selectors.DefaultSelector()
        self._fruitless = 0

    def run(self) -> None:
        """Serve until the board is closing, then end every process."""
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        try:
            while len(self._members) < self._workers:
                self._start()
            while not self._board.closing:
                self._hand_out()
                for key, _ in self._selector.select(self._until_deadline_s()):
                    if key.data is None:
                        self._drain()
                    elif key.data in self._members:
                        self._collect(key.data)
                self._end_late_ones()
        except Exception as error:  # noqa: BLE001 - nobody sees a thread's exception; every consumer gets this one
            with self._board.changed:
                failure = error if isinstance(error, DecoderFailed) else DecoderFailed(f"decoding: {error!r}")
                failure.__cause__ = failure.__cause__ or (error if error is not failure else None)
                self._board.failure = failure
        finally:
            for member in list(self._members):
                self._end(member)
            self._selector.close()
            os.close(self._woken)
            with self._board.changed:
                self._board.closing = True
                self._board.changed.notify_all()

    def _start(self) -> None:
        process = DecodingProcess(self._spec, self._limits)
        member = _Member(process, time.monotonic() + START_TIMEOUT_S)
        self._members.append(member)
        self._selector.register(process.replies, selectors.EVENT_READ, member)

    def _end(self, member: _Member) -> None:
        self._members.remove(member)
        self._selector.unregister(member.process.replies)
        member.process.kill()
        self._publish_ids()

    def _hand_out(self) -> None:
        """Fill the places of ready processes, the first place of each before the second of any."""
        with self._board.changed:
            queue = self._board.queue
            for depth in range(SLOTS):
                for member in self._members:
                    while queue and queue[0].cancelled:
                        queue.popleft()
                    if queue and member.ready and len(member.sent) == depth:
                        ticket = self._next_for(member, queue)
                        if ticket is not None:
                            self._send(member, ticket)
            self._board.hungry = any(member.ready and len(member.sent) < SLOTS for member in self._members)

    def _next_for(self, member: _Member, queue: deque[Ticket]) -> Ticket | None:
        """Take the next ticket out of the queue: a crop of the process' picture first, never one of another's."""
        taken = {other.picture for other in self._members if other is not member} - {None}
        chosen = None
        for place, ticket in enumerate(queue):
            if ticket.picture is not None and ticket.picture == member.picture and not ticket.cancelled:
                chosen = place
                break
            if chosen is None and ticket.picture not in taken and not ticket.cancelled:
                chosen = place
                if member.picture is None:
                    break
        if chosen is None:
            return None
        ticket = queue[chosen]
        del queue[chosen]
        return ticket

    def _send(self, member: _Member, ticket: Ticket) -> None:
        busy = {slot for _, slot in member.sent}
        slot = next(slot for slot in range(SLOTS) if slot not in busy)
        if not member.sent:
            member.deadline = time.monotonic() + self._limits.timeout_s
        member.sent.append((ticket, slot))
        member.picture = ticket.picture or member.picture
        member.process.send(ticket.operation, ticket.job, slot)

    def _collect(self, member: _Member) -> None:
        try:
            replies = member.process.receive()
            for reply in replies or []:
                self._accept(member, reply)
        except BrokenProcess as error:
            self._bury(member, f"sent nonsense: {error}", reason=Reason.CRASHED_DECODER)
        else:
            if replies is None:
                self._bury(member, member.process.wait(_END_TIMEOUT_S), reason=Reason.CRASHED_DECODER)

    def _accept(self, member: _Member, reply: dict[str, Any]) -> None:
        if not member.ready:
            if "ready" not in reply:
                raise BrokenProcess("the first reply is not that it is ready")
            member.ready, member.deadline = True, _NEVER
            self._publish_ids()
            return
        if not member.sent:
            raise BrokenProcess("a reply to nothing")
        ticket, slot = member.sent[0]
        outcome: Outcome | DecoderFailed
        if "defect" in reply:
            outcome = DecoderFailed(
                f"decoding {ticket.job.path!r} met a defect of this program; please report it:\n"
                f"{reply['defect']}"
            )
        else:
            outcome = member.process.outcome(reply, slot)
        member.sent.popleft()
        # The next job in the process has just begun.
        member.deadline = time.monotonic() + self._limits.timeout_s if member.sent else _NEVER
        self._fruitless = 0
        self._settle(ticket, outcome)

    def _end_late_ones(self) -> None:
        now = time.monotonic()
        for member in [member for member in self._members if member.deadline < now]:
            limit_s = self._limits.timeout_s if member.ready else START_TIMEOUT_S
            self._bury(member, f"took longer than {limit_s:g} s", reason=Reason.TIMEOUT)

    def _bury(self, member: _Member, ending: str, *, reason: Reason) -> None:
        """Refuse the file that a process died of, give back what waited behind it, start another."""
        self._end(member)
        if member.sent:
            culprit, _ = member.sent.popleft()
            self._settle(culprit, ImageRefused(reason, f"the decoding process {ending}"))
        else:
            self._fruitless += 1
        with self._board.changed:
            self._board.queue.extendleft(ticket for ticket, _ in reversed(member.sent))
        if self._fruitless >= _MAX_FRUITLESS_STARTS:
            raise DecoderFailed(
                f"{self._fruitless} decoding processes in a row ended without a job; the last one {ending}."
                f" memory_bytes ({self._limits.memory_bytes:,}) may be too small for Python itself"
            )
        self._start()

    def _settle(self, ticket: Ticket, outcome: Outcome | DecoderFailed) -> None:
        with self._board.changed:
            ticket.outcome = outcome
            self._board.changed.notify_all()

    def _publish_ids(self) -> None:
        with self._board.changed:
            self._board.process_ids = tuple(member.process.pid for member in self._members if member.ready)

    def _until_deadline_s(self) -> float | None:
        earliest = min((member.deadline for member in self._members), default=_NEVER)
        return None if earliest == _NEVER else max(0.0, earliest - time.monotonic()) + 0.001

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 1 << 12)
