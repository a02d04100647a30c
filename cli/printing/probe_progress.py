"""What a probe is doing, on stderr: one moving line on a terminal, plain lines when they are asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from cli.printing.progress import clock
from heads.stages import Stage, Watch

# A grid may begin a hundred stages a second; a terminal is read more slowly.
_SHOWN_EVERY_S = 0.1


@contextmanager
def shown_stages(*, verbose: bool = False, first: str = "loading the vectors") -> Iterator[Watch | None]:
    """Yield a callback for `heads.stages.watched`; None where nobody watches.

    Parameters
    ----------
    verbose
        Print a line for each stage, also where stderr is no terminal.
    first
        Stands there until the first stage begins.
    """
    if verbose:
        yield _lines(time.monotonic())
    elif sys.stderr.isatty():
        with _moving_line(first) as show:
            yield show
    else:
        yield None


def in_words(stages: tuple[Stage, ...]) -> str:
    """Return ``head 2 of 6: mlp, outer fold 3 of 5, calibration``."""
    return ", ".join(map(str, stages))


def _lines(started: float) -> Watch:
    def show(stages: tuple[Stage, ...]) -> None:
        click.echo(f"{clock(time.monotonic() - started):>5}  {in_words(stages)}", err=True)

    return show


@contextmanager
def _moving_line(first: str) -> Iterator[Callable[[tuple[Stage, ...]], None]]:
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from cli.moving_line import moving_line

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with moving_line(*columns) as line:
        task = line.add_task(first, total=None)
        last = 0.0

        def show(stages: tuple[Stage, ...]) -> None:
            nonlocal last
            now = time.monotonic()
            # A stage that encloses others is always seen, however briefly.
            seldom = len(stages) <= 2
            line.update(task, description=in_words(stages))
            if seldom or now - last >= _SHOWN_EVERY_S:
                line.refresh()
                last = now

        yield show
