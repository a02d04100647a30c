"""``embed info``: what a store holds."""

from __future__ import annotations

from pathlib import Path

import click

from cli.jobs.describe_store import describe_store, described_task
from cli.options import ProjectCommand, json_option, print_json, require, store_argument
from cli.printing.store_facts import print_store, print_task
from embedstore.store.reader import open_store
from embedstore.store.tasks import read_task


@click.command(name="info", cls=ProjectCommand)
@store_argument
@click.option(
    "--failures",
    "all_failures",
    is_flag=True,
    help="List every failed image, not the first three of each reason.",
)
@click.option(
    # Not called like the key of embed.toml: plain `embed info` is about the store.
    "--task",
    "of_task",
    metavar="NAME",
    help="Count the labels of this task instead, target by target.",
)
@json_option
def command(
    store_argument: Path | None, store: Path | None, all_failures: bool, of_task: str | None, as_json: bool
) -> None:
    """Show a store's identity, parts, tasks and failed images.

    \b
    Example:
      embed info mura.store
      embed info lumbar.store --task lumbar-severity
    """
    path = require(store_argument or store, "--store")
    if of_task is not None:
        task = described_task(read_task(open_store(path).path, of_task))
        print_json(task) if as_json else print_task(task)
        return
    document = describe_store(path)
    if as_json:
        print_json(document)
    else:
        print_store(document, all_failures=all_failures)
