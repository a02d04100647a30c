"""Pieces of work on threads of which each computes alone: no piece waits for another after every product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


def thread_count() -> int:
    """Return how many threads torch computes with."""
    import torch

    return int(torch.get_num_threads())


def on_threads(work: Callable[[_Piece], _Result], pieces: Sequence[_Piece], *, threads: int) -> list[_Result]:
    """Return ``[work(piece) for piece in pieces]`` by so many threads; with one, by this one and torch's own.

    An exception, Ctrl-C among them, ends the work once the pieces that have been begun are done.
    """
    if threads == 1 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    import torch

    own = torch.get_num_threads()
    # What torch is told here holds for the thread that tells it, and for threads to come.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(work, pieces))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(own)
