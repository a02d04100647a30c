"""Ctrl-C and SIGTERM as a request to stop cleanly."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from heads.stages import Stage, Watch

_OF_CHUNKS = "the current chunk is abandoned, finished ones stay"


@contextmanager
def stop_on_signal(what_stays: str = _OF_CHUNKS) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop; the second acts at once.

    Parameters
    ----------
    what_stays
        What is lost by it and what is not, in words.

    Yields
    ------
    Returns True once it was asked.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        asked = True
        signal.signal(number, before[number])
        click.echo(f"\nstopping: {what_stays} (again to stop at once)", err=True)

    before: dict[int, Any] = {
        number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupted_at_stages(watch: Watch | None) -> Iterator[Watch]:
    """Let SIGINT and SIGTERM end the block by KeyboardInterrupt, so that what is kept can be said.

    Libraries may swallow the exception, in an import that is tried or in a callback from C; the next stage that begins
    then raises it again.

    Parameters
    ----------
    watch
        Whoever watches the stages; None for nobody.

    Yields
    ------
    What to give to `heads.stages.watched` in its place.
    """
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        asked = True
        raise KeyboardInterrupt

    def pass_on(stages: tuple[Stage, ...]) -> None:
        if asked:
            raise KeyboardInterrupt
        if watch is not None:
            watch(stages)

    before: dict[int, Any] = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield pass_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
