"""Lock files of workers that write to one store at the same time: ``workers/<name>.lock``.

The file is signed and locked with ``flock`` as long as its worker lives, and deleted when it leaves in good
order. A file that is there without a lock is the trace of a worker that died; the next writer who has the
store alone cleans up after it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from embedstore.errors import StoreBusy
from embedstore.store.layout import WORKERS_FOLDER

_SUFFIX = ".lock"
_SIGNATURE_BYTES = 4096
# Whoever asks which workers live holds a worker's lock for a moment; a worker that starts just then tries again.
_PROBE_S = 1.0
_POLL_S = 0.02


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
            time.sleep(_POLL_S)
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
