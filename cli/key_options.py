"""Options by which the owner of a store with pseudonyms speaks of patients as the clinic does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])

_HELP = "Key file that the store was made with: for clinical ids, and for files whose paths are hidden."


def needed_key_option(function: F) -> F:
    """Add ``--key-file`` to a command that cannot do without; ``embed.toml`` may name it."""
    return click.option("--key-file", type=click.Path(path_type=Path), help=_HELP)(function)


def key_option(function: F) -> F:
    """Add ``--key-file``, which ``embed.toml`` may name; there it counts where the file is there."""
    return click.option("--key-file", type=click.Path(path_type=Path), callback=_that_is_there, help=_HELP)(
        function
    )


def by_option(function: F) -> F:
    """Add ``--by`` and ``--key-file``."""
    return click.option(
        "--by",
        metavar="ATTRIBUTE",
        help="What the ids are: PatientID, StudyInstanceUID, SeriesInstanceUID, AccessionNumber or SOPInstanceUID; "
        "needs --key-file. AccessionNumber=COLUMN names a table's column of another name.",
    )(key_option(function))


def _that_is_there(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the key file; None for one of ``embed.toml`` that did not come along with a project that was handed on."""
    named = str(parameter.name)
    if path is not None and context.get_parameter_source(named) is ParameterSource.DEFAULT_MAP:
        return path if path.is_file() else None
    return path
