"""``embed info``: what a store holds."""

from __future__ import annotations

from pathlib import Path

import click

from cli.jobs.describe_store import describe_store
from cli.options import ProjectCommand, json_option, print_json, require, store_argument
from cli.printing.store_facts import print_store


@click.command(name="info", cls=ProjectCommand)
@store_argument
@click.option(
    "--failures",
    "all_failures",
    is_flag=True,
    help="List every failed image, not the first three of each reason.",
)
@json_option
def command(store_argument: Path | None, store: Path | None, all_failures: bool, as_json: bool) -> None:
    """Show a store's identity, parts, tasks and failed images.

    \b
    Example:
      embed info mura.store
    """
    document = describe_store(require(store_argument or store, "--store"))
    if as_json:
        print_json(document)
    else:
        print_store(document, all_failures=all_failures)
