"""``embed label``: add a task to a store from a table."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import ProjectCommand, json_option, plural, print_json, print_notice, require, store_argument
from cli.project import shown
from embedstore.datasets.label_table import read_label_task
from embedstore.errors import DataError
from embedstore.store.reader import open_store
from embedstore.store.tasks import write_task
from embedstore.store.writer import open_writer
from embedstore.task import Unit


@click.command(name="label", cls=ProjectCommand)
@store_argument
@click.option("--name", required=True, help="Name of the new task.")
@click.option(
    "--csv",
    "table",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV, Parquet or JSONL with labels.",
)
@click.option(
    "--unit",
    type=click.Choice(["image", "study"]),
    default="study",
    show_default=True,
    help="What a row of the table labels, by column image_id or study_id.",
)
@click.option(
    "--target", multiple=True, metavar="COLUMN", help="Label column; repeatable.  [default: all others]"
)
@click.option(
    "--classes",
    metavar="A,B,...",
    help="Classes in order; of two the second is the positive one.  [default: sorted]",
)
@json_option
def command(
    store_argument: Path | None,
    store: Path | None,
    name: str,
    table: Path,
    unit: Unit,
    target: tuple[str, ...],
    classes: str | None,
    as_json: bool,
) -> None:
    """Add a task to a store, or replace it, from a table with one row per image or study.

    \b
    Example:
      embed label mura.store --name hardware --csv hardware.csv --unit study
    """
    opened = open_store(require(store_argument or store, "--store"))
    task = read_label_task(
        table, name=name, unit=unit, targets=target, classes=classes.split(",") if classes else ()
    )
    known = set(opened.table.column(f"{unit}_id").to_pylist()) if opened.parts else set()
    ids = task.labels.column("unit_id").to_pylist()
    found = sum(unit_id in known for unit_id in ids)
    if not found:
        raise DataError(
            f"{table}: none of its {len(ids):,} {unit} ids is in store {opened.path}; "
            f"the store's look like {sorted(filter(None, known))[:1]}"
        )
    if found < len(ids):
        stranger = next(unit_id for unit_id in ids if unit_id not in known)
        print_notice(
            f"{table}: {len(ids) - found:,} of {len(ids):,} {unit} ids are not in store {shown(opened.path)}: "
            f"{stranger!r}, for example; the store's look like {min(filter(None, known))!r}"
        )
    with open_writer(opened.path, opened.identity, say=lambda line: click.echo(line, err=True)):
        write_task(opened.path, task)
    labelled = {name: len(ids) - task.labels.column(name).null_count for name in task.targets}
    if as_json:
        print_json({**task.to_json(), "rows": len(ids), "in_store": found, "labelled": labelled})
    else:
        counted = ", ".join(f"{target} {count:,}" for target, count in labelled.items())
        click.echo(f"task {name}: {plural(len(ids), 'row')}, {found:,} in the store; labels: {counted}")
        positive = f"; positive: {task.classes[1]}" if len(task.classes) == 2 else ""
        click.echo(f"classes {', '.join(task.classes)}{positive}")
