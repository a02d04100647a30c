"""Headers of many DICOM files, read in processes that may fail, slow down or die without harm.

The processes are started as plain interpreters, not forked: the caller may run threads, whose locks a child
would inherit locked, and its main script must not run again. They talk in lines of JSON.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple
from types import FrameType, TracebackType
from typing import Any

from pydicom import config

from embedstore.headers.dicom_headers import Kind, ScannedFile, header_from_values, scan_file

_CHUNK_FILES = 64
_FILE_TIMEOUT_S = 10.0
_PROCESS_MEMORY_BYTES = 2 << 30
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from embedstore.headers.dicom_scan import answer; answer()"
)


def scan_headers(
    folder: str, paths: Sequence[str], *, key: bytes | None = None, workers: int | None = None
) -> Iterator[ScannedFile]:
    """Yield what each file is, in the order of `paths`.

    Parameters
    ----------
    folder
        What `paths` are relative to.
    paths
        Names of regular files, encodable as UTF-8.
    key
        Secret for the patient, study and series keys; None leaves the keys out.
    workers
        Number of processes; None for one per core.

    Notes
    -----
    A file that cannot be read, takes more than 10 s, needs more than 2 GiB or kills its process becomes a
    `ScannedFile` with a problem. Without a key, identifiers never leave the scanning process.
    """
    chunks = [paths[start : start + _CHUNK_FILES] for start in range(0, len(paths), _CHUNK_FILES)]
    count = max(1, min(workers or os.cpu_count() or 1, len(chunks)))
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    processes = [_Process(folder, key) for _ in range(count)]
    for process in processes:
        idle.put(process)

    def scan(chunk: Sequence[str]) -> list[ScannedFile]:
        process = idle.get()
        try:
            return process.scan(chunk)
        finally:
            idle.put(process)

    try:
        with ThreadPoolExecutor(count) as threads:
            for scanned in threads.map(scan, chunks):
                yield from scanned
    finally:
        for process in processes:
            process.close()


class _Process:
    """One scanning process, started at its first chunk and again whenever a file has killed it."""

    def __init__(self, folder: str, key: bytes | None) -> None:
        self._request = {"folder": folder, "key": None if key is None else key.hex()}
        self._process: subprocess.Popen[str] | None = None

    def scan(self, paths: Sequence[str]) -> list[ScannedFile]:
        """Scan `paths`; if the process dies of one of them, only that one is lost."""
        answers = self._ask(paths)
        if answers is not None:
            return [_from_json(*answer) for answer in answers]
        if len(paths) == 1:
            return [ScannedFile(paths[0], Kind.IMAGE, problem="reading the header killed its process")]
        return [scanned for path in paths for scanned in self.scan([path])]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with _closing(self._process):
                self._process.kill()
            self._process = None

    def _ask(self, paths: Sequence[str]) -> list[Any] | None:
        process = self._process = self._process or _start()
        assert process.stdin is not None  # for the type checker: both are pipes
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(self._request | {"paths": list(paths)}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            self.close()
            return None
        answers: list[Any] = json.loads(line)
        return answers


class _closing:  # noqa: N801 - used like contextlib.closing
    """Close the pipes of a process, even if it left something unread, and wait for its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - this interpreter, and no shell
        [sys.executable, "-P", "-c", _START, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # pydicom warns about values, and values may name people
        text=True,
        encoding="ascii",
    )


def _from_json(
    path: str, kind: str, header: list[Any] | None, problem: str | None, sop_class: str | None
) -> ScannedFile:
    return ScannedFile(path, Kind(kind), header_from_values(header) if header else None, problem, sop_class)


def answer() -> None:
    """Answer requests until the standard input ends: the main function of a scanning process."""
    _limit_process()
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints must not mix with the replies
    for line in sys.stdin:
        request = json.loads(line)
        key = None if request["key"] is None else bytes.fromhex(request["key"])
        scanned = [_scan_within_limits(request["folder"], path, key) for path in request["paths"]]
        rows = [
            (entry.path, entry.kind, entry.header and astuple(entry.header), entry.problem, entry.sop_class)
            for entry in scanned
        ]
        replies.write(json.dumps(rows) + "\n")
        replies.flush()


def _limit_process() -> None:
    """Bound memory, and let broken values pass silently: `dicom_headers` checks them itself."""
    config.settings.reading_validation_mode = config.IGNORE
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGALRM, _ring)
    with suppress(ImportError, OSError, ValueError):  # not every system has the limit
        import resource  # POSIX only

        resource.setrlimit(resource.RLIMIT_AS, (_PROCESS_MEMORY_BYTES, _PROCESS_MEMORY_BYTES))


class _TooSlowError(Exception):
    """The time for one file is over."""


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise _TooSlowError


def _scan_within_limits(folder: str, path: str, key: bytes | None) -> ScannedFile:
    signal.setitimer(signal.ITIMER_REAL, _FILE_TIMEOUT_S)
    try:
        return scan_file(folder, path, key)
    except _TooSlowError:
        return ScannedFile(path, Kind.IMAGE, problem=f"the header was not read in {_FILE_TIMEOUT_S:g} s")
    except Exception as error:  # noqa: BLE001 - a hostile header may raise anything; none may stop the scan
        # The error's text may quote a value, and so a name: only its type is kept.
        return ScannedFile(path, Kind.BROKEN, problem=f"the header is broken ({type(error).__name__})")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
