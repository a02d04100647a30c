"""Work that may take a while: so many at a time, so many waiting, and the next is sent away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from embedstore.errors import EmbedError

P = ParamSpec("P")
R = TypeVar("R")


class Busy(EmbedError):
    """Too much is waiting already."""


class Workshop:
    """Threads for each kind of work, with a bounded queue before them.

    Parameters
    ----------
    places
        Kind -> how many at a time, and how many more may wait.
    """

    def __init__(self, places: Mapping[str, tuple[int, int]]) -> None:
        self._pools = {
            kind: ThreadPoolExecutor(at_once, thread_name_prefix=f"page-{kind}")
            for kind, (at_once, _) in places.items()
        }
        self._most = {kind: at_once + waiting for kind, (at_once, waiting) in places.items()}
        self._held = dict.fromkeys(places, 0)

    def take(self, kind: str) -> None:
        """Take a place until `leave`; raises Busy where none is left. In the event loop's thread, as `leave`."""
        if self._held[kind] >= self._most[kind]:
            raise Busy("too much is waiting here already; try again in a moment")
        self._held[kind] += 1

    def leave(self, kind: str) -> None:
        """Give a place back."""
        self._held[kind] -= 1

    async def run(self, kind: str, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do work in a thread of its kind; raises Busy where none is left to wait."""
        self.take(kind)
        try:
            return await self.carry_out(kind, work, *args, **kwargs)
        finally:
            self.leave(kind)

    async def carry_out(self, kind: str, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do work in a thread of its kind, with a place that was taken before."""
        # Whoever has gone is not waited for, but what was begun for him is finished: his place is not free before.
        task = asyncio.get_running_loop().run_in_executor(self._pools[kind], lambda: work(*args, **kwargs))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Let what was begun end, and begin nothing more."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
