"""Options that name a data set and speak to its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.completion import complete_datasets
from cli.own_options import named_values, reader_option
from embedstore.datasets.base import takes_option
from embedstore.errors import UsageError
from embedstore.labels.label_rules import EMPTY_WAYS, UNCERTAIN_WAYS

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
        table_options,
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
    return _added(function, options)


def table_options(function: F) -> F:
    """Add the options of the reader ``table``."""
    options = (
        click.option("--label", multiple=True, metavar="COLUMN", help="table: a label column; repeatable."),
        click.option(
            "--label-group",
            multiple=True,
            metavar="NAME=COLUMN,...",
            help="table: columns of 0, 1, -1 or nothing that are the targets of one task (FIRST..LAST: all between); "
            "repeatable.",
        ),
        click.option(
            "--label-separator",
            multiple=True,
            metavar="[COLUMN=]TEXT",
            help="table: what stands between the findings in a label column; each finding becomes a target.",
        ),
        _uncertain_option("table: what -1 is in columns of 0, 1 and -1.  [default: missing]"),
        _empty_option("table: what an empty cell of a finding is.  [default: missing]", default=None),
        click.option(
            "--positive",
            multiple=True,
            metavar="[COLUMN=]CLASS",
            help="table: the positive class of a label column.  [default: of two the second, never no or normal]",
        ),
        click.option(
            "--unit",
            metavar="image|study|COLUMN,...",
            help="table: what carries a label.  [default: study where every row has one, else image]",
        ),
        click.option(
            "--column",
            multiple=True,
            metavar="NAME=COLUMN",
            help="table: COLUMN holds the manifest's NAME (path, image_id, patient_id, ...), or a template such as "
            "images/{patient}/{Path[-1]}; repeatable.",
        ),
        click.option(
            "--join",
            multiple=True,
            metavar="TABLE",
            help="table: a further table, matched by the columns that both have; repeatable.",
        ),
        click.option(
            "--images-root",
            type=click.Path(path_type=Path),
            help="table: the folder that its paths are relative to.  [default: the table's own]",
        ),
    )
    return _added(_cell_options(function), options)


def _cell_options(function: F) -> F:
    """Add the options about how cells of a table are read."""
    options = (
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
            metavar="ID",
            help="table: study_id or series_id where each patient or study numbers its own, patient_id=COLUMN where "
            "each site does; repeatable.",
        ),
    )
    return _added(function, options)


def findings_options(function: F) -> F:
    """Add the options of a table of findings with one row per unit."""
    options = (
        click.option(
            "--label-separator",
            metavar="TEXT",
            help="What stands between the findings in the label column; each finding becomes a target.",
        ),
        _uncertain_option("What -1 is in columns of 0, 1 and -1.  [default: missing]"),
        _empty_option("What an empty cell of a finding is.", default="missing"),
        click.option(
            "--missing", multiple=True, metavar="WORD", help="A word for a missing value; repeatable."
        ),
        click.option(
            "--as-written",
            multiple=True,
            metavar="COLUMN",
            help="Take this column's cells letter by letter; repeatable.",
        ),
    )
    return _added(function, options)


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
    for name in ("label", "label_group", "label_separator", "positive", "join"):
        if given.get(name):
            options[name] = list(given[name])
    for name in ("uncertain", "empty", "unit"):
        if given.get(name):
            options[name] = given[name]
    if given.get("column"):
        options["columns"] = dict(_pair(text) for text in given["column"])
    for name in ("missing", "as_written", "within_parent"):
        if given.get(name):
            options[name] = list(given[name])
    if given.get("images_root"):
        options["images_root"] = str(given["images_root"])
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


def _added(function: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def _uncertain_option(words: str) -> Callable[[F], F]:
    return click.option("--uncertain", type=click.Choice(UNCERTAIN_WAYS), help=words)


def _empty_option(words: str, *, default: str | None) -> Callable[[F], F]:
    shown = default is not None
    return click.option(
        "--empty", type=click.Choice(EMPTY_WAYS), default=default, show_default=shown, help=words
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals or not name or not column:
        raise UsageError(f"--column takes NAME=COLUMN; found {text!r}")
    return name, column
