"""Options that name a data set and speak to its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.own_options import named_values, reader_option
from embedstore.datasets.base import takes_option
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
            "--key-file",
            type=click.Path(path_type=Path),
            help="dicom-folder, and table with --hide-paths: file with the secret behind the ids. Made where it is "
            "not there; keep it outside of stores.",
        ),
        click.option(
            "--hide-paths/--keep-paths",
            default=None,
            help="Keep paths out of the store, and ids as keyed digests.  [default: hidden for dicom-folder, kept for "
            "table]",
        ),
        click.option(
            "--keep",
            multiple=True,
            metavar="COLUMN",
            help="table with --hide-paths: a further column that may stay; repeatable.",
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
        Values of ``label``, ``column``, ``key_file``, ``hide_paths``, ``keep`` and ``reader_option``.
    settings
        The table ``options`` of ``embed.toml``.
    """
    options = {**settings, **named_values(given.get("reader_option", ()), "--reader-option")}
    if given.get("label"):
        options["label"] = list(given["label"])
    if given.get("column"):
        options["columns"] = dict(_pair(text) for text in given["column"])
    if given.get("keep"):
        options["keep"] = list(given["keep"])
    for name in ("key_file", "hide_paths"):
        if given.get(name) is not None:
            options[name] = given[name]
    return options


def without_foreign_key(options: dict[str, Any], dataset: str, *, typed: bool) -> dict[str, Any]:
    """Return the options without a key file that only ``embed.toml`` names, for a reader that takes none."""
    if typed or "key_file" not in options or takes_option(dataset, "key_file"):
        return options
    return {name: entry for name, entry in options.items() if name != "key_file"}


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals or not name or not column:
        raise UsageError(f"--column takes NAME=COLUMN; found {text!r}")
    return name, column
