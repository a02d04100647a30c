"""What every job shares: how it tells its caller what a person should know, and how places are named."""

from __future__ import annotations

from collections.abc import Callable

# Takes one line that belongs beside the answer and not in it.
Notify = Callable[[str], None]


def ignore(line: str) -> None:
    """Take a notice and do nothing: for callers who want the answer alone."""
    del line
