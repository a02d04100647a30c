"""What a probe is doing just now, told to whoever watches: protocol and solvers name their stages, nobody prints here.

A stage may lie inside another: fold 3 of 5, in it the calibration. Grids of other packages may name theirs as well,
by `counted`; one that does not is shown as the stage that it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Parameters
    ----------
    name
        What is done, or what is counted (``fold``).
    number, total
        The how manieth of how many; 0 where nothing is counted.
    """

    name: str
    number: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.number:,} of {self.total:,}" if self.total else self.name


# Takes the stages that are open, the outermost first; called whenever one begins.
Watch = Callable[[tuple[Stage, ...]], None]
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)
_open: ContextVar[tuple[Stage, ...]] = ContextVar("open", default=())


@contextmanager
def watched(watch: Watch | None) -> Iterator[None]:
    """Tell `watch` of every stage that begins inside the block; None for nobody."""
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


@contextmanager
def stage(name: str, number: int = 0, total: int = 0) -> Iterator[None]:
    """Open a stage for the block, inside those that are open.

    Examples
    --------
    >>> seen = []
    >>> with watched(lambda stages: seen.append(", ".join(map(str, stages)))), stage("fold", 2, 5):
    ...     with stage("calibration"):
    ...         pass
    >>> seen
    ['fold 2 of 5', 'fold 2 of 5, calibration']
    """
    watch = _watch.get()
    if watch is None:
        yield
        return
    before = _open.get()
    _open.set((*before, Stage(name, number, total)))
    try:
        # Whoever watches may stop the work here.
        watch(_open.get())
        yield
    finally:
        _open.set(before)


def counted(name: str, entries: Sequence[T]) -> Iterator[T]:
    """Yield the entries of a sequence, each as a stage of its own: ``fold 1 of 5``, ``fold 2 of 5``, ..."""
    for number, entry in enumerate(entries, start=1):
        with stage(name, number, len(entries)):
            yield entry
