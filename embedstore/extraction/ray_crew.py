"""Workers on many machines: actors of a Ray cluster, each with a device of its own, compute whole chunks.

Work is handed out a few chunks at a time, so that a fast device does more of it. The chunks of an actor that
died are given to another; a machine that joins later gets actors too. Only records and receipts travel between
processes; pixels and vectors go from the actor straight to the store's folder.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from embedstore.errors import EmbedError, MissingDependency, UsageError

LOCAL = "local"
INSTALL_LINE = 'pip install "embedstore[ray]"'
_FEW = 4
_POLL_S = 0.5
_LOOK_FOR_NODES_S = 5.0
_CLOSE_S = 30.0
_CONNECT_S = 5.0


class ClusterLost(EmbedError):
    """No actor is left; nothing that was committed is affected."""


class Worker(Protocol):
    """What an actor runs: it holds a device and does pieces of work."""

    def describe(self) -> Any:
        """Return what the driver needs to know before it plans."""
        ...

    def do(self, pieces: Sequence[Any], stopping: Callable[[], bool]) -> Any:
        """Do the pieces in order and return the outcome."""
        ...


class WorkerFactory(Protocol):
    """Makes a worker inside an actor; travels there by pickle."""

    def __call__(self, *, name: str, device: str, cpus: int) -> AbstractContextManager[Worker]:
        """Open a worker of this name on a device, with so many CPU cores to decode with."""
        ...


@dataclass(frozen=True)
class _Slot:
    """Room for one actor on one node."""

    node_id: str
    host: str
    device: str
    cpus: int
    gpus: int


@dataclass(eq=False)
class _Member:
    """An actor in a slot, and whether it has ever done a piece of work."""

    slot: _Slot
    actor: Any
    proven: bool = False


class _Actor:
    """Runs a worker; Ray makes it a remote class. Opened by the first call, so that errors keep their type."""

    def __init__(self, factory: WorkerFactory, name: str, slot: _Slot) -> None:
        self._factory = factory
        self._name = name
        self._slot = slot
        self._resources = ExitStack()
        self._worker: Worker | None = None
        self._stopping = False

    def describe(self) -> Any:
        return self._opened().describe()

    def do(self, pieces: Sequence[Any]) -> Any:
        return self._opened().do(pieces, lambda: self._stopping)

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        self._worker = None
        self._resources.close()

    def _opened(self) -> Worker:
        if self._worker is None:
            slot = self._slot
            worker = self._factory(name=self._name, device=slot.device, cpus=slot.cpus)
            self._worker = self._resources.enter_context(worker)
        return self._worker


class Crew:
    """The actors of one run; `open_crew` makes it.

    Parameters
    ----------
    ray
        The library.
    factory
        Makes the workers.
    name
        Beginning of their names.
    device
        ``auto``, ``cpu`` or ``cuda``.
    say
        Receives a line when an actor is lost.
    """

    def __init__(
        self, ray: Any, factory: WorkerFactory, *, name: str, device: str, say: Callable[[str], None]
    ) -> None:
        self.ray = ray
        self.factory = factory
        self.name = name
        self.device = device
        self.say = say
        self.lost = 0
        self._members: dict[_Slot, list[_Member]] = {}
        self._wanted: dict[_Slot, int] = {}
        self._started_ever = 0
        self._idle: deque[_Member] = deque()
        self._looked = 0.0
        self._first_error: EmbedError | None = None

    def describe(self) -> Any:
        """Return the description that the first actor to answer gives."""
        self._start_workers()
        while self._idle:
            member = self._idle[0]
            found, answer = self._answer(member.actor.describe.remote(), member)
            if found:
                return answer
            self._idle.popleft()
        raise self._no_worker_left()

    def do(self, pieces: Sequence[Any], *, stopping: Callable[[], bool]) -> Iterator[Any]:
        """Hand out pieces until all are done, and yield each outcome as it arrives.

        Raises
        ------
        EmbedError
            If no actor is left: the first error of one.
        """
        queue = deque(pieces)
        busy: dict[Any, tuple[_Member, list[Any]]] = {}
        stopped = False
        while queue or busy:
            self._start_workers()
            if stopping() and not stopped:
                stopped = True
                queue.clear()
                for member, _ in busy.values():
                    member.actor.stop.remote()
            self._hand_out(queue, busy)
            if not busy:
                if not queue:
                    return
                self._replace_last_worker()
                continue
            ready, _ = self.ray.wait(list(busy), timeout=_POLL_S)
            for reference in ready:
                member, assigned = busy.pop(reference)
                found, answer = self._answer(reference, member)
                if found:
                    member.proven = True
                    self._idle.append(member)
                    yield answer
                elif not stopped:
                    queue.extendleft(reversed(assigned))

    def close(self) -> None:
        """Let the actors release their locks, and end them."""
        actors = [member.actor for members in self._members.values() for member in members]
        for reference in [actor.close.remote() for actor in actors]:
            with suppress(self.ray.exceptions.RayError):
                self.ray.get(reference, timeout=_CLOSE_S)
        for actor in actors:
            self.ray.kill(actor)

    def _hand_out(self, queue: deque[Any], busy: dict[Any, tuple[_Member, list[Any]]]) -> None:
        while queue and self._idle:
            member = self._idle.popleft()
            workers = len(self._idle) + len(busy) + 1
            # Few at the end, so that no worker idles while another still has many to do.
            few = max(1, min(_FEW, len(queue) // (4 * workers)))
            assigned = [queue.popleft() for _ in range(min(few, len(queue)))]
            busy[member.actor.do.remote(assigned)] = (member, assigned)

    def _answer(self, reference: Any, member: _Member) -> tuple[bool, Any]:
        """Return (True, the actor's answer), or (False, None) after saying that the actor is lost."""
        try:
            return True, self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, EmbedError | OSError):
                raise
            self._lose(member, error.cause)
        except self.ray.exceptions.RayError as error:
            slot, what = member.slot, type(error).__name__
            self._lose(member, ClusterLost(f"the worker on {slot.host} ({slot.device}) is gone ({what})"))
        return False, None

    def _lose(self, member: _Member, error: EmbedError | OSError) -> None:
        self.lost += 1
        self._members[member.slot].remove(member)
        if not member.proven:
            # Whatever killed an actor before it did any work would kill the next one there.
            self._wanted[member.slot] -= 1
        # Ray takes a while to notice a lost node; until then no actor is started there.
        self._looked = time.monotonic()
        self.ray.kill(member.actor)
        if self._first_error is None:
            self._first_error = error if isinstance(error, EmbedError) else ClusterLost(str(error))
        self.say(f"{error}; its chunks go to others")

    def _no_worker_left(self) -> EmbedError:
        if self._first_error is not None:
            return self._first_error
        return UsageError(
            f"device {self.device!r}: no node of the Ray cluster has it. Use `device='cpu'`, or add nodes"
        )

    def _start_workers(self) -> None:
        """Start an actor wherever there is room for one: on nodes that joined, and for those that were lost."""
        if self._wanted and time.monotonic() - self._looked < _LOOK_FOR_NODES_S:
            return
        self._looked = time.monotonic()
        for slot, count in _slots(self.ray.nodes(), self.device).items():
            members = self._members.setdefault(slot, [])
            for _ in range(self._wanted.setdefault(slot, count) - len(members)):
                members.append(_Member(slot, self._new_actor(slot)))
                self._idle.append(members[-1])

    def _replace_last_worker(self) -> None:
        """Replace the last actor, if it did any work before it was lost.

        Raises
        ------
        EmbedError
            If nobody takes its place.
        """
        if any(self._wanted[slot] > len(members) for slot, members in self._members.items()):
            time.sleep(max(0.0, self._looked + _LOOK_FOR_NODES_S - time.monotonic()))
            self._start_workers()
        if not self._idle:
            raise self._no_worker_left()

    def _new_actor(self, slot: _Slot) -> Any:
        # Reached only when Ray is installed.
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._started_ever += 1
        where = NodeAffinitySchedulingStrategy(slot.node_id, soft=False)
        # A second thread, so that `stop` is heard while `do` works.
        options = {"num_cpus": slot.cpus, "num_gpus": slot.gpus, "max_concurrency": 2}
        remote = self.ray.remote(_Actor).options(scheduling_strategy=where, **options)
        return remote.remote(self.factory, f"{self.name}-{self._started_ever}", slot)


@contextmanager
def open_crew(
    factory: WorkerFactory, *, address: str, name: str, device: str, say: Callable[[str], None]
) -> Iterator[Crew]:
    """Connect to a Ray cluster and end the actors afterwards.

    Parameters
    ----------
    factory
        Makes the workers.
    address
        ``local`` starts Ray on this machine; ``auto`` or ``host:port`` joins a running cluster.
    name, device, say
        See `Crew`.

    Raises
    ------
    MissingDependency
        If Ray is not installed.
    UsageError
        If there is no cluster at `address`, or `device` names more than a kind of device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"Ray takes `device` auto, cpu or cuda and uses every one; found {device!r}")
    with _connected(address) as ray:
        crew = Crew(ray, factory, name=name, device=device, say=say)
        try:
            yield crew
        finally:
            crew.close()


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    # Ray reads this when it is imported: no usage report leaves the machine unless the user asks for one.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(f"a cluster needs Ray: {INSTALL_LINE}") from error
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        _check_listening(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        raise UsageError(
            f"no Ray cluster answers at {address!r} ({first_line}). Start one with `ray start --head`, or leave "
            "`ray_address` out to use this machine"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_listening(address: str) -> None:
    """Raise `OSError` if nobody listens at ``host:port``, where Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def _slots(nodes: Sequence[dict[str, Any]], device: str) -> dict[_Slot, int]:
    """Return how many actors each living node has room for: one per GPU, or one per node without GPUs."""
    living = [node for node in nodes if node["Alive"]]
    gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in living}
    use_gpus = device == "cuda" or (device == "auto" and any(gpus.values()))
    slots = {}
    for node in living:
        cpus, host = int(node["Resources"].get("CPU", 0)), node["NodeManagerHostname"]
        count = gpus[node["NodeID"]] if use_gpus else int(cpus > 0)
        if count:
            # Ray shows an actor only the GPU that it owns.
            name = "cuda:0" if use_gpus else "cpu"
            slots[_Slot(node["NodeID"], host, name, cpus // count, int(use_gpus))] = count
    return slots
