"""One decoding process as its parent sees it: start, jobs in, replies out, shared memory, end.

A plain child process and not `multiprocessing`: that would import the parent's main script (and with it
torch) into every child, or fork a process that has threads; would need names in ``/dev/shm`` that a
``kill -9`` leaves behind; and would unpickle what a process that just read a hostile file sends. Here the
memory is an unnamed file that the kernel frees, and a message is one line of JSON that is checked.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, astuple
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.decoding.decode import DecodeJob, DecodeLimits, EncoderInput
from embedstore.decoding.grey_values import LONGEST_PX, GreyValues
from embedstore.decoding.worker import SLOTS, slot_bytes
from embedstore.errors import ImageRefused, Note, Reason
from embedstore.images.preprocess import PreprocessSpec
from embedstore.images.series_range import MAX_DISTINCT_VALUES, ValueCounts

Outcome = EncoderInput | ValueCounts | GreyValues | ImageRefused

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    " from embedstore.decoding.worker import main; main(sys.argv[2])"
)
_LONGEST_LINE = 1 << 16
_CHILD_ENVIRONMENT = {
    # One thread each: the pool is the parallelism, and threads cost address space.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # A process that does nothing but decode frees its whole heap after each image, and glibc then gives the
    # pages back to fetch them again: 25 % of the time of a 512 px PNG. Kept, isolation costs 4 %.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TOP_PAD_": str(1 << 24),
}


class BrokenProcess(Exception):
    """The process sent something that no sound decoding process sends."""


class DecodingProcess:
    """A started process with `SLOTS` places for images.

    Parameters
    ----------
    spec, limits
        What it decodes to, and within what.
    """

    def __init__(self, spec: PreprocessSpec, limits: DecodeLimits) -> None:
        self._spec = spec
        self._buffered = b""
        size = SLOTS * slot_bytes(spec)
        with contextlib.ExitStack() as child_ends, contextlib.ExitStack() as undo:
            memory = _unnamed_memory(size)
            child_ends.callback(os.close, memory)
            self._memory = undo.enter_context(mmap.mmap(memory, size))
            requests, self._requests = os.pipe()
            child_ends.callback(os.close, requests)
            undo.callback(os.close, self._requests)
            self.replies, replies = os.pipe()
            child_ends.callback(os.close, replies)
            undo.callback(os.close, self.replies)
            os.set_blocking(self.replies, False)
            settings = {
                "spec": asdict(spec), "limits": asdict(limits), "memory": memory,
                "requests": requests, "replies": replies, "parent": os.getpid(),
            }  # fmt: skip
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and no shell
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # codecs print what they think of a file
                pass_fds=(memory, requests, replies),
                env=_environment(),
                process_group=0,  # Ctrl-C in the terminal goes to the parent alone
            )
            self._release = undo.pop_all()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, operation: str, job: DecodeJob, slot: int) -> None:
        """Queue one job; its reply will name `slot`."""
        request = {
            "operation": operation,
            "slot": slot,
            "job": [
                job.path,
                job.frame,
                job.modality,
                job.value_range,
                dict(job.ranges_by_kind),
                None if job.crop is None else astuple(job.crop),
            ],
        }
        # A process that has just died is noticed when its replies end.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, json.dumps(request).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the replies that have arrived, or None once the process has closed its end.

        Raises
        ------
        BrokenProcess
            If a line is too long or no JSON object.
        """
        try:
            received = os.read(self.replies, _LONGEST_LINE)
        except BlockingIOError:
            return []
        if not received:
            return None
        *lines, self._buffered = (self._buffered + received).split(b"\n")
        if len(self._buffered) > _LONGEST_LINE:
            raise BrokenProcess("a reply is too long")
        try:
            replies = [json.loads(line) for line in lines]
        except ValueError as error:
            raise BrokenProcess("a reply is not JSON") from error
        if not all(isinstance(reply, dict) for reply in replies):
            raise BrokenProcess("a reply is not an object")
        return replies

    def outcome(self, reply: dict[str, Any], slot: int) -> Outcome:
        """Return what `reply` says about the job in `slot`, its pixels copied out of shared memory.

        Raises
        ------
        BrokenProcess
            If a value is not one that a sound process sends.
        """
        try:
            if reply["slot"] != slot:
                raise BrokenProcess(f"a reply is about slot {reply['slot']}, not {slot}")
            if "reason" in reply:
                return ImageRefused(Reason(reply["reason"]), str(reply["message"])[:500])
            if "values" in reply:
                return self._counts(int(reply["values"]), str(reply["kind"])[:64], slot)
            if "grid" in reply:
                return self._grey(reply, slot)
            notes = frozenset(Note(code) for code in reply["notes"])
            pixels, aspect = self._pixels(tuple(reply["shape"]), slot), float(reply["aspect"])
            sha256 = bytes.fromhex(reply["sha256"])
            if len(sha256) != 32 or not 0 < aspect < np.inf:
                raise BrokenProcess(f"a reply has an aspect of {aspect} and a digest of {len(sha256)} bytes")
            return EncoderInput(pixels, sha256, notes, aspect)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenProcess(f"a reply is malformed: {error}") from error

    def kill(self) -> None:
        """End the process now, wait for it and free its memory and pipes; may be called once."""
        self._process.kill()
        self._process.wait()
        self._release.close()

    def wait(self, timeout_s: float) -> str:
        """Wait for a process that has closed its end and return how it ended, for people."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return "closed its pipe and did not end"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:  # a real-time signal has no name
            return f"was killed by signal {-code}"

    def _pixels(self, shape: tuple[int, ...], slot: int) -> npt.NDArray[np.uint8]:
        size = self._spec.size_px
        if shape not in {(size, size), (size, size, 3)}:
            raise BrokenProcess(f"a reply has shape {shape}")
        pixels = self._copied(np.dtype(np.uint8), int(np.prod(shape)), slot, offset=0)
        return pixels.reshape(shape)

    def _counts(self, n: int, kind: str, slot: int) -> ValueCounts:
        if not 0 <= n <= MAX_DISTINCT_VALUES:
            raise BrokenProcess(f"a reply has {n} values")
        values = self._copied(np.dtype(np.float64), n, slot, offset=0)
        counts = self._copied(np.dtype(np.int64), n, slot, offset=8 * n)
        if not (np.isfinite(values).all() and (np.diff(values) > 0).all() and (counts > 0).all()):
            raise BrokenProcess("a reply has values out of order")
        return ValueCounts(values, counts, kind)

    def _grey(self, reply: dict[str, Any], slot: int) -> GreyValues:
        height, width = (int(side) for side in reply["grid"])
        low, high = (float(limit) for limit in reply["window"])
        if not (0 < height <= LONGEST_PX and 0 < width <= LONGEST_PX and -np.inf < low < high < np.inf):
            raise BrokenProcess(f"a reply has a grid of {height} x {width} in a window from {low} to {high}")
        values = self._copied(np.dtype(np.float32), height * width, slot, offset=0)
        return GreyValues(
            values.reshape(height, width), low, high, bool(reply["inverted"]), str(reply["unit"])[:64]
        )

    def _copied(self, dtype: np.dtype[Any], n: int, slot: int, *, offset: int) -> npt.NDArray[Any]:
        start = slot * slot_bytes(self._spec) + offset
        return np.frombuffer(self._memory, dtype, n, start).copy()


def _environment() -> dict[str, str]:
    # The parent's warning filters are for its own tests; a deprecation inside a codec must not keep a process
    # from starting.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return kept | _CHILD_ENVIRONMENT


def _unnamed_memory(size: int) -> int:
    """Return a descriptor of `size` bytes of memory that has no name and dies with its last holder."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("embedstore-pixels", os.MFD_CLOEXEC)
    else:  # macOS: an unlinked file, which stays in the page cache
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
