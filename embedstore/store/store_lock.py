"""Who may write: one writer alone, or many workers at once; every lock dies with its owner.

The lock is ``flock`` on ``writer.lock``: exclusive for one writer, shared for workers. The kernel frees it
however the owner dies; the file's text only says who that is. The file is never deleted: deleting a locked
file would let two owners in.

A worker also holds a lock file of its own, ``workers/<name>.lock``: signed and locked as long as it lives, and deleted
when it leaves in good order. A file that is there without a lock is the trace of a worker that died; the next writer
who has the store alone cleans up after it.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import StoreBusy, StoreError
from embedstore.store.layout import WORKERS_FOLDER

WRITING = "writing"
PLANNING = "planning"
BRIEF_WAIT_S = 300.0
_POLL_S = 0.1
_SUFFIX = ".lock"
_SIGNATURE_BYTES = 4096
# Whoever asks which workers live holds a worker's lock for a moment; a worker that starts just then tries again.
_PROBE_S = 1.0
_WORKER_POLL_S = 0.02
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class BrieflyBusy(StoreBusy):
    """The holder plans or cleans up, or has not signed yet: it is worth waiting for."""


@dataclass(frozen=True)
class Lock:
    """A lock that is held.

    Parameters
    ----------
    taken_over
        Whether a previous owner died with it, so that half-written temporary files may lie about.
    """

    taken_over: bool


@contextmanager
def writer_lock(path: Path, *, say: Callable[[str], None], purpose: str = WRITING) -> Iterator[Lock]:
    """Hold the lock file at `path` alone.

    Parameters
    ----------
    path
        The lock file; created if missing.
    say
        Receives one line when the lock of a dead owner is taken over.
    purpose
        ``writing``, or ``planning`` for what takes moments: workers wait for the latter.

    Raises
    ------
    BrieflyBusy
        If another process plans.
    StoreBusy
        If another process writes, or workers do; the message names host, pid and since when of each.
    StoreError
        If the folder is read-only or its file system has no locks.
    """
    descriptor = _open(path)
    try:
        _acquire(descriptor, path, fcntl.LOCK_EX)
        previous = _read_owner(descriptor)
        if previous:
            say(f"{path.parent}: the last writer ({previous}) ended without closing the store; taking over")
        # Workers hold the shared lock before they sign, so whoever signed and is here now is dead.
        dead = dead_workers(path.parent)
        for worker in dead:
            say(f"{path.parent}: {worker} ended without closing the store; cleaning up after it")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_signature(purpose)).encode(), 0)
        try:
            yield Lock(taken_over=bool(previous or dead))
            forget_workers(path.parent)
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def worker_lock(
    path: Path, name: str, *, say: Callable[[str], None], wait_s: float = BRIEF_WAIT_S
) -> Iterator[None]:
    """Hold the lock file at `path` together with other workers, and the name `name` alone.

    Parameters
    ----------
    path
        The lock file.
    name
        Name of the worker; a second process of the same name is refused.
    say
        Receives one line when the worker waits for a planner, or replaces a dead one.
    wait_s
        How long to wait for a planner, seconds.

    Raises
    ------
    StoreBusy
        If a writer holds the store alone, or another process works under this name.
    StoreError
        As `writer_lock`.
    """
    descriptor = _open(path)
    try:
        _await_shared(descriptor, path, say, wait_s)
        with register_worker(path.parent, name, _signature(WRITING), say=say):
            yield
    finally:
        os.close(descriptor)


def _await_shared(descriptor: int, path: Path, say: Callable[[str], None], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            _acquire(descriptor, path, fcntl.LOCK_SH)
        except BrieflyBusy as error:
            if time.monotonic() > deadline:
                raise
            if not told:
                say(f"waiting: {error}")
                told = True
            time.sleep(_POLL_S)
        else:
            return


def _signature(purpose: str) -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "purpose": purpose,
    }


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in _REFUSED:
            raise StoreError(
                f"{path.parent} is read-only for this user ({error.strerror}); "
                "writing to the store needs write permission on it"
            ) from error
        raise


def _acquire(descriptor: int, path: Path, mode: int) -> None:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(descriptor, path, mode) from error
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise StoreError(
                f"{path.parent}: this file system has no locks ({error.strerror}); "
                "keep the store on one that has"
            ) from error
        raise


def _busy(descriptor: int, path: Path, mode: int) -> StoreBusy:
    advice = "Wait for it or stop it, then run the same command again"
    # The purpose first: if the holder leaves between the two, its signature is gone and it was brief.
    purpose, owner = _purpose(descriptor), _read_owner(descriptor)
    if not owner:
        # Workers never refuse each other: whoever asks to share met a writer that comes or goes.
        workers = living_workers(path.parent) if mode == fcntl.LOCK_EX else []
        if workers:
            return StoreBusy(f"{path.parent} is being written by {', '.join(workers)}. {advice}")
        return BrieflyBusy(
            f"{path.parent} is being written by another process (which has not signed yet). {advice}"
        )
    if purpose == PLANNING:
        return BrieflyBusy(f"{path.parent} is being planned by another process ({owner}). {advice}")
    return StoreBusy(f"{path.parent} is being written by another process ({owner}). {advice}")


def _read_owner(descriptor: int) -> str:
    """Return ``host …, pid …, since …``, or ``""`` if the last owner exited cleanly."""
    text = os.pread(descriptor, 4096, 0)
    if not text:
        return ""
    try:
        owner = json.loads(text)
        return f"host {owner['host']}, pid {owner['pid']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "an owner whose signature is unreadable"


def _purpose(descriptor: int) -> str:
    try:
        text = os.pread(descriptor, 4096, 0)
        return str(json.loads(text)["purpose"]) if text else PLANNING
    except (ValueError, KeyError, TypeError):
        return WRITING


@contextmanager
def register_worker(
    root: Path, name: str, signature: Mapping[str, object], *, say: Callable[[str], None]
) -> Iterator[None]:
    """Hold the worker's lock file; the caller holds the store's shared lock.

    Raises
    ------
    StoreBusy
        If another process works under this name.
    """
    path = root / WORKERS_FOLDER / f"{name}{_SUFFIX}"
    path.parent.mkdir(exist_ok=True)
    descriptor = _open_locked(path)
    try:
        previous = os.pread(descriptor, _SIGNATURE_BYTES, 0)
        if previous:
            say(f"{root}: {_described(path)} ended without closing the store; going on in its place")
        _write(descriptor, json.dumps(dict(signature)).encode())
        try:
            yield
        finally:
            # What the dead one left half-written still lies about, and so its trace must stay.
            if previous:
                _write(descriptor, previous)
            else:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def living_workers(root: Path, *, named: str = "") -> list[str]:
    """Return a description of each worker that is at work and whose name begins with `named`."""
    found = [path for path in _lock_files(root) if path.name.startswith(named)]
    return [_described(path) for path in found if not _is_free(path)]


def dead_workers(root: Path) -> list[str]:
    """Return a description of each worker that did not exit cleanly."""
    return [_described(path) for path in _lock_files(root) if _is_free(path)]


def has_traces(root: Path) -> bool:
    """Whether a worker is at work or did not exit cleanly."""
    return bool(_lock_files(root))


def forget_workers(root: Path) -> None:
    """Delete the lock files; only for whoever has the store alone, for then no worker lives."""
    for path in _lock_files(root):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # something else lies in it
        (root / WORKERS_FOLDER).rmdir()


def _lock_files(root: Path) -> list[Path]:
    return sorted((root / WORKERS_FOLDER).glob(f"*{_SUFFIX}"))


def _open_locked(path: Path) -> int:
    deadline = time.monotonic() + _PROBE_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise StoreBusy(
                    f"{path.parent.parent}: {_described(path)} is at work already. "
                    "Give every process a shard of its own, or wait for it"
                ) from error
            time.sleep(_WORKER_POLL_S)
            continue
        # Its owner may have deleted the file between our open and our lock: then we locked a file without a name.
        if _names(path, descriptor):
            return descriptor
        os.close(descriptor)


def _write(descriptor: int, signature: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, signature, 0)


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _described(path: Path) -> str:
    name = path.name.removesuffix(_SUFFIX)
    try:
        signature = json.loads(path.read_bytes())
        return f"{name} (host {signature['host']}, pid {signature['pid']}, since {signature['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{name} (unsigned)"
