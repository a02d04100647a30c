"""The decoding process: reads jobs from its parent, writes pixels to shared memory, trusts no file.

It is started with ``python -c`` by `embedstore.decoding.process` and imports what decoding needs, and no
more: never torch, never the parent's main script.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np

from embedstore.decoding.decode import DecodeJob, DecodeLimits, LastPicture, count_values_of, decode
from embedstore.decoding.grey_values import LONGEST_PX, grey_values_of
from embedstore.errors import ImageRefused
from embedstore.images.crop import CropBox
from embedstore.images.preprocess import PreprocessSpec
from embedstore.images.series_range import MAX_DISTINCT_VALUES

SLOTS = 2  # one image being decoded, one waiting, so that the process never idles between two
GRACE_S = 5.0
_LOOK_FOR_PARENT_S = 2.0


def slot_bytes(spec: PreprocessSpec) -> int:
    """Return the size of one slot: an RGB picture, values (float64) and counts (int64), or grey values (float32)."""
    return max(spec.size_px**2 * 3, MAX_DISTINCT_VALUES * 16, LONGEST_PX**2 * 4)


def main(settings_json: str) -> None:
    """Decode until the parent closes its end of the pipe or dies."""
    settings = json.loads(settings_json)
    spec, limits = PreprocessSpec(**settings["spec"]), DecodeLimits(**settings["limits"])
    _restrict(limits)
    last = LastPicture()
    with mmap.mmap(settings["memory"], SLOTS * slot_bytes(spec)) as memory:
        _reply(settings["replies"], {"ready": os.getpid()})
        for request in _requests(settings["requests"], settings["parent"]):
            # The parent kills a process that takes too long. If the parent itself is gone, the kernel does.
            signal.setitimer(signal.ITIMER_REAL, limits.timeout_s + GRACE_S)
            reply = _carry_out(request, memory, spec, limits, last)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _reply(settings["replies"], {"slot": request["slot"]} | reply)


def _restrict(limits: DecodeLimits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a patient's image
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = limits.memory_bytes if hard == resource.RLIM_INFINITY else min(limits.memory_bytes, hard)
    if sys.platform != "darwin":  # macOS knows the call and refuses it
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _requests(descriptor: int, parent: int) -> Iterator[dict[str, Any]]:
    """Yield requests, one JSON document a line, until end of file or until the parent is another process.

    A forked child of the parent may hold the pipe open after the parent was killed, so its id is watched too.
    """
    buffered = b""
    arrived = select.poll()  # unlike select, it takes descriptors beyond 1,023
    arrived.register(descriptor, select.POLLIN)
    while True:
        while not arrived.poll(_LOOK_FOR_PARENT_S * 1000):
            if os.getppid() != parent:
                return
        received = os.read(descriptor, 1 << 16)
        if not received:
            return
        *lines, buffered = (buffered + received).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _carry_out(
    request: dict[str, Any], memory: mmap.mmap, spec: PreprocessSpec, limits: DecodeLimits, last: LastPicture
) -> dict[str, Any]:
    path, frame, modality, value_range, by_kind, crop = request["job"]
    start = request["slot"] * slot_bytes(spec)
    try:
        ranges = {kind: (low, high) for kind, (low, high) in by_kind.items()}
        limits_of_series = None if value_range is None else tuple(value_range)
        box = None if crop is None else CropBox(*crop)
        job = DecodeJob(path, frame, modality, limits_of_series, ranges, box)
        if request["operation"] == "count":
            counted = count_values_of(job, limits)
            size = len(counted.values) * 8
            memory[start : start + size] = counted.values.tobytes()
            memory[start + size : start + 2 * size] = counted.counts.astype(np.int64).tobytes()
            return {"values": len(counted.values), "kind": counted.kind}
        if request["operation"] == "grey":
            grey = grey_values_of(job, limits)
            memory[start : start + grey.values.nbytes] = grey.values.tobytes()
            window = [grey.low, grey.high]
            return {
                "grid": grey.values.shape,
                "window": window,
                "inverted": grey.inverted,
                "unit": grey.unit,
            }
        decoded = decode(job, spec, limits, last)
        memory[start : start + decoded.pixels.nbytes] = decoded.pixels.tobytes()
        return {
            "shape": decoded.pixels.shape,
            "sha256": decoded.content_sha256.hex(),
            "notes": sorted(decoded.notes),
            "aspect": decoded.aspect,
        }
    except ImageRefused as refusal:
        return {"reason": refusal.reason.value, "message": refusal.message}
    except Exception:  # noqa: BLE001 - a defect of this program: the parent raises it with this text
        return {"defect": traceback.format_exc(limit=-8)[-4000:]}


def _reply(descriptor: int, document: dict[str, Any]) -> None:
    line = json.dumps(document).encode() + b"\n"
    while line:
        line = line[os.write(descriptor, line) :]
