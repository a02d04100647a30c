"""Options by which the owner of a store with pseudonyms speaks of patients as the clinic does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def key_option(function: F) -> F:
    """Add ``--key-file``, which ``embed.toml`` may name."""
    return click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        help="Key file that the store was made with: for clinical ids, and for files whose paths are hidden.",
    )(function)


def by_option(function: F) -> F:
    """Add ``--by`` and ``--key-file``."""
    return click.option(
        "--by",
        metavar="ATTRIBUTE",
        help="What the ids are: PatientID, StudyInstanceUID, SeriesInstanceUID, AccessionNumber or SOPInstanceUID; "
        "needs --key-file. AccessionNumber=COLUMN names a table's column of another name.",
    )(key_option(function))
