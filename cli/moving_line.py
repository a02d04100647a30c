"""A line on a terminal that moves while something is at work, and what is printed meanwhile, above it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import Progress, ProgressColumn


class _Above(FileProxy):
    """Stderr while a line moves; rich's own proxy names no encoding, so that click would write past it."""

    encoding = "utf-8"
    errors = "replace"


@contextlib.contextmanager
def moving_line(*columns: ProgressColumn) -> Iterator[Progress]:
    """Yield a line of these columns on stderr; what else goes to stderr stands above it and stays."""
    console = Console(stderr=True)
    line = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    with line, contextlib.redirect_stderr(_Above(console, sys.stderr)):
        yield line
