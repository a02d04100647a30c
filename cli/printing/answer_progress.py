"""How far a prediction has come: a bar on a terminal that makes room for answers and notices, and a line at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cli.options import plural
from cli.printing.progress import line_of
from embedstore.extraction.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class AnswerProgress:
    """Counts the images that are done; `shown_answers` makes one.

    Parameters
    ----------
    total
        Images to do.
    bar
        The bar; None where nobody looks at a terminal.
    """

    def __init__(self, total: int, bar: Bar | None) -> None:
        self._total = total
        self._bar = bar
        self._task = None if bar is None else bar.add_task("loading the encoder", total=None)
        self._began = time.perf_counter()
        self._done = self._failed = 0

    def add(self, images: int, failed: int) -> None:
        """Count images."""
        self._done += images
        self._failed += failed
        if self._bar is not None and self._task is not None:
            state = Progress(self._done, self._total, self._failed, 0, 0, self._done / self._seconds)
            self._bar.update(self._task, total=state.total, completed=state.done, description=line_of(state))

    @contextmanager
    def above(self) -> Iterator[None]:
        """Take the bar away while something is printed."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def say(self, line: str) -> None:
        """Print a line for people."""
        with self.above():
            click.echo(line, err=True)

    def end(self) -> None:
        """Say how many images there were, and how many a second."""
        if self._done:
            self.say(
                f"{plural(self._done, 'image')} in {self._seconds:.1f} s, {self._done / self._seconds:.1f} images/s"
            )

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began


@contextmanager
def shown_answers(total: int) -> Iterator[AnswerProgress]:
    """Yield the count of `total` images, with a bar on stderr where that is a terminal."""
    if not total or not sys.stderr.isatty():
        yield AnswerProgress(total, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    # Answers go to stdout: rich would take them to its own console.
    with Bar(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        yield AnswerProgress(total, bar)
