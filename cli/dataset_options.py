"""Options that name a data set and speak to its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.completion import complete_datasets
from cli.own_options import named_values, reader_option
from embedstore.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def dataset_options(function: F) -> F:
    """Add ``--dataset``, ``--root`` and the readers' own options."""
    options = (
        click.option(
            "--dataset",
            shell_complete=complete_datasets,
            help="Reader of the data set: mura, rsna-lumbar, table, dicom-folder, ...",
        ),
        click.option("--root", type=click.Path(path_type=Path), help="The data set's folder or table."),
        click.option("--label", multiple=True, metavar="COLUMN", help="table: a label column; repeatable."),
        click.option(
            "--column",
            multiple=True,
            metavar="NAME=COLUMN",
            help="table: COLUMN holds the manifest's NAME (path, image_id, patient_id, ...); repeatable.",
        ),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path),
            help="dicom-folder: file with the secret key behind patient and study keys.",
        ),
        reader_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


def reader_options(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reader's keyword arguments: those of ``embed.toml``, then those of the command line.

    Parameters
    ----------
    given
        Values of ``label``, ``column``, ``key_file`` and ``reader_option``.
    settings
        The table ``options`` of ``embed.toml``.
    """
    options = {**settings, **named_values(given.get("reader_option", ()), "--reader-option")}
    if given.get("label"):
        options["label"] = list(given["label"])
    if given.get("column"):
        options["columns"] = dict(_pair(text) for text in given["column"])
    if given.get("key_file"):
        options["key_file"] = given["key_file"]
    return options


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals or not name or not column:
        raise UsageError(f"--column takes NAME=COLUMN; found {text!r}")
    return name, column
