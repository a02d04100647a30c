"""Options that name a data set and speak to its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.own_options import named_values, reader_option
from embedstore.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def dataset_options(function: F) -> F:
    """Add ``--dataset``, ``--root`` and the readers' own options."""
    options = (
        click.option("--dataset", help="Reader of the data set: mura, rsna-lumbar, table, dicom-folder, ..."),
        click.option("--root", type=click.Path(path_type=Path), help="The data set's folder or table."),
        click.option("--label", multiple=True, metavar="COLUMN", help="table: a label column; repeatable."),
        click.option(
            "--column",
            multiple=True,
            metavar="NAME=COLUMN",
            help="table: COLUMN holds the manifest's NAME (path, image_id, patient_id, ...); repeatable.",
        ),
        click.option(
            "--images-root",
            type=click.Path(path_type=Path),
            help="table: the folder that its paths are relative to.  [default: the table's own]",
        ),
        click.option(
            "--missing", multiple=True, metavar="WORD", help="table: a word for a missing value; repeatable."
        ),
        click.option(
            "--as-written",
            multiple=True,
            metavar="COLUMN",
            help="table: take this column's cells letter by letter; repeatable.",
        ),
        click.option(
            "--within-parent",
            multiple=True,
            type=click.Choice(["study_id", "series_id"]),
            help="table: these ids are numbered anew in each patient or study; repeatable.",
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
        Values of the options that `dataset_options` adds.
    settings
        The table ``options`` of ``embed.toml``.
    """
    options = {**settings, **named_values(given.get("reader_option", ()), "--reader-option")}
    if given.get("label"):
        options["label"] = list(given["label"])
    if given.get("column"):
        options["columns"] = dict(_pair(text) for text in given["column"])
    for name in ("missing", "as_written", "within_parent"):
        if given.get(name):
            options[name] = list(given[name])
    if given.get("images_root"):
        options["images_root"] = str(given["images_root"])
    if given.get("key_file"):
        options["key_file"] = given["key_file"]
    return options


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals or not name or not column:
        raise UsageError(f"--column takes NAME=COLUMN; found {text!r}")
    return name, column
