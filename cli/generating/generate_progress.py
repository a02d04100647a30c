"""How far a generation has come: a moving line on a terminal, plain lines otherwise, and what it came to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import plural
from cli.printing.progress import clock

if TYPE_CHECKING:
    from embedstore.generation.generation_options import Generated

Show = Callable[["Generated"], None]
_PLAIN_EVERY_S = 10.0


@contextmanager
def shown_studies(start: Generated) -> Iterator[Show]:
    """Yield a callback that shows the state on stderr; `start` is the state before the model is loaded."""
    began = time.monotonic()
    if start.done == start.studies:
        yield lambda state: None
    elif sys.stderr.isatty():
        with _bar(start, began) as show:
            yield show
    else:
        yield _lines(began)


def line_of(state: Generated, seconds: float) -> str:
    """Return one line: studies, time a study takes, time left, what went wrong so far."""
    each_s = seconds / max(state.answered, 1)
    wrong = [
        f"{count:,} {what}"
        for count, what in (
            (state.without_image, "without an image"),
            (state.cut_off, "cut off at the token limit"),
        )
        if count
    ]
    return ", ".join(
        [
            f"{state.done:,} of {plural_studies(state.studies)}",
            f"{each_s:.1f} s each",
            f"{clock(each_s * (state.studies - state.done))} left",
            *wrong,
        ]
    )


def print_generated(state: Generated, out: Path, *, stopped: bool) -> None:
    """Print what a generation came to, and what may come next."""
    before = f", {state.before:,} of them before" if state.before else ""
    click.echo(f"{out}: {state.done:,} of {plural_studies(state.studies)} answered{before}")
    if state.without_image:
        click.echo(
            f"  {plural_studies(state.without_image)} without an image: an empty response, and why stands in the line"
        )
    if state.failed_images:
        click.echo(
            f"  {plural(state.failed_images, 'image')} could not be shown: failed_images in their lines"
        )
    if state.cut_off:
        click.echo(
            f"  {plural(state.cut_off, 'answer')} cut off at the token limit: --max-new-tokens raises it, in a new file"
        )
    click.echo(
        "stopped; the same command goes on" if stopped else f"Next: embed compare RUN --responses {out}"
    )


def plural_studies(count: int) -> str:
    """Return ``1 study`` or ``2 studies``."""
    return f"{count:,} stud{'y' if count == 1 else 'ies'}"


def _lines(began: float) -> Show:
    last = began

    def show(state: Generated) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_EVERY_S or state.done == state.studies:
            click.echo(line_of(state, now - began), err=True)
            last = now

    return show


@contextmanager
def _bar(start: Generated, began: float) -> Iterator[Show]:
    from rich.progress import BarColumn, TextColumn

    from cli.moving_line import moving_line

    with moving_line(BarColumn(), TextColumn("{task.description}")) as bar:
        task = bar.add_task("loading the model", total=None)

        def show(state: Generated) -> None:
            line = line_of(state, time.monotonic() - began)
            bar.update(task, total=start.studies, completed=state.done, description=line)

        yield show
