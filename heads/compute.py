"""Where torch computes a head: on which device, and small work on one thread.

Threads that meet after each short step spin while another process has their core: on a shared machine of two
cores the eigenbasis of 1,152 dimensions then took 10 s in place of 0.2 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from embedstore.errors import UsageError

# Cells (rows x columns) up to which a second thread gains next to nothing.
SMALL_CELLS = 1 << 20


@contextmanager
def one_thread(*, only_if: bool = True) -> Iterator[None]:
    """Keep torch to one thread, if the condition holds."""
    threads = torch.get_num_threads()
    if only_if:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def torch_device(name: str) -> torch.device:
    """Return the device behind ``auto`` (a CUDA device if there is one), ``cpu`` or ``cuda``.

    Raises
    ------
    UsageError
        For another name, or if torch sees no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda; found {name!r}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError(f"device {name!r} is not there: torch sees no GPU; use cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
