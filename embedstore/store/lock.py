"""One writer at a time: an advisory lock that dies with its owner.

The lock is ``flock`` on ``writer.lock``, so the kernel frees it however the owner dies; the file's text
only says who that is. The file is never deleted: deleting a locked file would let two owners in.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedstore.errors import StoreBusy, StoreError

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Lock:
    """A lock that is held.

    Parameters
    ----------
    taken_over
        Whether the previous owner died with it, so that half-written temporary files may lie about.
    """

    taken_over: bool


@contextmanager
def writer_lock(path: Path, *, say: Callable[[str], None]) -> Iterator[Lock]:
    """Hold the lock file at `path`.

    Parameters
    ----------
    path
        The lock file; created if missing.
    say
        Receives one line when the lock of a dead owner is taken over.

    Raises
    ------
    StoreBusy
        If another process holds it; the message names host, pid and since when.
    StoreError
        If the folder is read-only or its file system has no locks.
    """
    descriptor = _open(path)
    try:
        _acquire(descriptor, path)
        previous = _read_owner(descriptor)
        if previous:
            say(f"{path.parent}: the last writer ({previous}) ended without closing the store; taking over")
        owner = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        try:
            yield Lock(taken_over=bool(previous))
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


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


def _acquire(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = _read_owner(descriptor) or "which has not signed yet"
        raise StoreBusy(
            f"{path.parent} is being written by another process ({owner}). "
            "Wait for it or stop it, then run the same command again"
        ) from error
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise StoreError(
                f"{path.parent}: this file system has no locks ({error.strerror}); "
                "keep the store on one that has"
            ) from error
        raise


def _read_owner(descriptor: int) -> str:
    """Return ``host …, pid …, since …``, or ``""`` if the last owner left in good order."""
    text = os.pread(descriptor, 4096, 0)
    if not text:
        return ""
    try:
        owner = json.loads(text)
        return f"host {owner['host']}, pid {owner['pid']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "an owner whose signature is unreadable"
