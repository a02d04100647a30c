"""How pictures reach a device and vectors come back: at once on a CPU, beside the passes on a CUDA device."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Protocol

import torch


class Lane(Protocol):
    """Copies to and from a device, and marks in the course of its work.

    A mark is a moment of the device: a number of seconds, or an event in its queue.
    """

    ahead: int
    """Batches that stand in the device's queue while an earlier one is waited for."""

    def copied(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pictures on the device; what is queued from here on finds them there."""
        ...

    def fetched(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return memory of the host that holds the vectors as soon as a mark set after this has passed."""
        ...

    def mark(self) -> Any:
        """Mark the moment at which everything queued so far is done."""
        ...

    def wait(self, mark: Any) -> None:
        """Wait until a mark has passed."""
        ...

    def seconds(self, began: Any, ended: Any) -> float:
        """Return the device's time between two marks that have passed."""
        ...


class CpuLane:
    """Nothing to copy and nothing to wait for: a pass is done when its call returns."""

    ahead = 0

    def copied(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pictures."""
        return pixels

    def fetched(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the vectors."""
        return vectors

    def mark(self) -> float:
        """Return the time, in seconds."""
        return perf_counter()

    def wait(self, mark: float) -> None:
        """Return: the moment is past."""

    def seconds(self, began: float, ended: float) -> float:
        """Return the time between two marks."""
        return ended - began


class CudaLane:
    """Page-locked memory and a stream of its own, so that copies and passes overlap.

    Parameters
    ----------
    device
        A CUDA device with its index.
    """

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copied(self, pixels: torch.Tensor) -> torch.Tensor:
        """Copy pictures to the device beside the current passes; the next pass waits for them."""
        # The allocator of page-locked memory keeps a block until the copy out of it is through.
        pinned = pixels.pin_memory()
        # Leaving a stream alone would go back to a stream of device 0, and open a context there.
        with torch.cuda.device(self.device), torch.cuda.stream(self.copies):
            copied = pinned.to(self.device, non_blocking=True)
        passes = torch.cuda.current_stream(self.device)
        passes.wait_stream(self.copies)
        # The block belongs to the copying stream; it must not be handed out again before the pass has read it.
        copied.record_stream(passes)
        return copied

    def fetched(self, vectors: torch.Tensor) -> torch.Tensor:
        """Queue the copy of vectors to page-locked memory: 150 kB a pass, 8 MB with tokens: no own stream."""
        pinned = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        pinned.copy_(vectors, non_blocking=True)
        return pinned

    def mark(self) -> torch.cuda.Event:
        """Queue an event behind the passes; the device notes its time without anybody waiting for it."""
        # Blocking: whoever waits for it sleeps, and leaves the core to the decoding processes.
        event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        """Sleep until the device has come to the event."""
        mark.synchronize()

    def seconds(self, began: torch.cuda.Event, ended: torch.cuda.Event) -> float:
        """Return the time between two events by the device's own clock."""
        return float(began.elapsed_time(ended)) / 1000


def lane_of(device: torch.device) -> Lane:
    """Return the lane of a device."""
    return CpuLane() if device.type == "cpu" else CudaLane(device)
