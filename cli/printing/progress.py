"""Progress of an extraction: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from embedstore.extraction.progress import Progress

_PLAIN_EVERY_S = 10.0


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield a callback that shows the state on stderr."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


def line_of(state: Progress) -> str:
    """Return one line: images, speed, time left, failures so far."""
    return (
        f"{state.done:,} of {state.total:,} images, {state.images_per_s:.1f} images/s, "
        f"{clock(state.eta_s)} left, {state.failed:,} failed"
    )


def _lines() -> Callable[[Progress], None]:
    last = time.monotonic()

    def show(state: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_EVERY_S or state.chunks_done == state.chunks_total:
            click.echo(line_of(state), err=True)
            last = time.monotonic()

    return show


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.progress import BarColumn, TextColumn

    from cli.moving_line import moving_line

    with moving_line(BarColumn(), TextColumn("{task.description}")) as bar:
        task = bar.add_task("loading the encoder", total=None)
        yield lambda state: bar.update(
            task, total=state.total, completed=state.done, description=line_of(state)
        )


def clock(seconds: float) -> str:
    """Return ``m:ss`` or ``h:mm:ss``."""
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
