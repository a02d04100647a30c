"""What a section is given: a device, a size, a time and a file; and how anything is timed on the device."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from clock import timed

from embedstore.errors import EmbedError
from gpu_checks.rows import CPU, Row, RowFile

_ROUNDS = 3
_WARM_UP = 2


@dataclass(frozen=True)
class Plan:
    """How one section is run.

    Parameters
    ----------
    device
        Where to compute.
    small
        Whether everything is tiny, to see that it works.
    ends
        `time.monotonic` at which the section is stopped.
    rows
        Where rows go.
    """

    device: torch.device
    small: bool
    ends: float
    rows: RowFile

    @property
    def device_name(self) -> str:
        """The card's own name, or ``cpu``."""
        return device_name(self.device)

    @property
    def window_s(self) -> float:
        """Seconds for which a thing is run to be timed."""
        return 0.02 if self.small else 1.0

    def left_s(self) -> float:
        """Return the seconds until the section is stopped."""
        return self.ends - time.monotonic()

    def write(self, section: str, **row: Any) -> None:
        """Append a row that this device computed."""
        self.rows.append({"section": section, "device": self.device_name, **row})

    def verdict(self, found: float | None, promised: float) -> str:
        """Say whether a promise for GPUs is kept; a CPU promises nothing."""
        if self.device.type == CPU:
            return "none on a CPU"
        if found is None:
            return f">= {promised:.2f}: not measured"
        return f">= {promised:.2f}: {'kept' if found >= promised else 'not kept'}"


def device_name(device: torch.device) -> str:
    """Return the card's own name, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else CPU


def seconds_of(run: Callable[[], object], plan: Plan) -> float:
    """Return the seconds of one call: the median of three rounds that fill the plan's window."""
    for _ in range(_WARM_UP):
        run()
    once = timed(run, plan.device)
    repeats = max(1, int(plan.window_s / _ROUNDS / max(once, 1e-6)))

    def repeated() -> None:
        for _ in range(repeats):
            run()

    return sorted(timed(repeated, plan.device) for _ in range(_ROUNDS))[_ROUNDS // 2] / repeats


def attempted(
    measure: Callable[[], Mapping[str, Any]],
    otherwise: Mapping[str, Any],
    device: torch.device,
    *,
    also: tuple[type[Exception], ...] = (),
) -> Row:
    """Return what was measured, or `otherwise` with the reason as its ``note``.

    Memory that does not suffice and a kernel that does not exist here are results. An error after which the
    device computes nothing more (`torch.AcceleratorError`) ends the section.

    Parameters
    ----------
    measure
        Returns the row.
    otherwise
        The row of what does not run.
    device
        Its memory is freed before, and after a failure.
    also
        Errors of another library that are results too.
    """
    forget(device)
    try:
        return dict(measure())
    except torch.OutOfMemoryError:
        reason = "out of memory"
    except torch.AcceleratorError:
        raise
    except (RuntimeError, EmbedError, *also) as error:
        reason = f"does not run: {str(error).strip().partition(chr(10))[0]}"
    # The error is gone by now, and with it the frames that held the tensors.
    forget(device)
    return {**otherwise, "note": reason}


def forget(device: torch.device) -> None:
    """Free what nobody holds any more, and count the device's peak memory anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.init()  # without it there are no statistics to reset
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float | None:
    """Return the largest memory of tensors since `forget`, 10**9 bytes; None on a CPU, which does not count."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


@contextmanager
def choices() -> Iterator[list[str]]:
    """Collect what the product's log says of the kernels and executions that it chooses."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("embedstore")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
