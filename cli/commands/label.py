"""``embed label``: add a task to a store from a table."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import ProjectCommand, json_option, plural, print_json, print_notice, require, store_argument
from cli.project import shown
from embedstore.datasets.label_table import read_label_task
from embedstore.errors import DataError
from embedstore.queries.manifest_columns import require_columns, unit_names
from embedstore.store.reader import Store, open_store
from embedstore.store.tasks import write_task
from embedstore.store.writer import open_writer
from embedstore.task import Task, unit_in_words, unit_key


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
    metavar="image|study|COLUMN,...",
    default="study",
    show_default=True,
    help="What a row of the table labels: by column image_id or study_id, or by the values of several columns that "
    "table and store have (study_id,level).",
)
@click.option(
    "--target", multiple=True, metavar="COLUMN", help="Label column; repeatable.  [default: all others]"
)
@click.option(
    "--classes",
    metavar="A,B,...",
    help="Classes in order; of two the second is the positive one.  [default: sorted]",
)
@click.option(
    "--positive",
    metavar="CLASS",
    help="Class that one acts on, for decision curves and reliability.  [default: of two the second, else none]",
)
@click.option(
    "--ordered",
    is_flag=True,
    help="Classes are grades, from the least to the gravest: quadratic kappa is stated.",
)
@json_option
def command(
    store_argument: Path | None,
    store: Path | None,
    name: str,
    table: Path,
    unit: str,
    target: tuple[str, ...],
    classes: str | None,
    positive: str | None,
    ordered: bool,
    as_json: bool,
) -> None:
    """Add a task to a store, or replace it, from a table with one row per image, study or other unit.

    \b
    Example:
      embed label mura.store --name hardware --csv hardware.csv --unit study --positive yes
    """
    opened = open_store(require(store_argument or store, "--store"))
    task = read_label_task(
        table,
        name=name,
        unit=unit_in_words(unit_key(unit)),
        targets=target,
        classes=classes.split(",") if classes else (),
        positive=positive,
        ordered=ordered,
    )
    ids = task.unit_ids
    found = _count_known(opened, task, table)
    with open_writer(opened.path, opened.identity, say=lambda line: click.echo(line, err=True)):
        write_task(opened.path, task)
    labelled = {name: len(ids) - task.labels.column(name).null_count for name in task.targets}
    if as_json:
        print_json({**task.to_json(), "rows": len(ids), "in_store": found, "labelled": labelled})
    else:
        counted = ", ".join(f"{target} {count:,}" for target, count in labelled.items())
        click.echo(f"task {name}: {plural(len(ids), 'row')}, {found:,} in the store; labels: {counted}")
        in_order = " in order" if task.ordered else ""
        acted_on = f"; positive: {task.positive}" if task.positive else ""
        click.echo(f"classes{in_order} {', '.join(task.classes)}{acted_on}")


def _count_known(store: Store, task: Task, table: Path) -> int:
    """Return how many of the task's units are in the store; some must be, and strangers are said."""
    require_columns([store], task.unit_key)
    known = set(unit_names(store.table, task.unit).tolist()) - {""} if store.parts else set()
    ids = task.unit_ids
    strangers = [unit_id for unit_id in ids if unit_id not in known]
    if len(strangers) == len(ids):
        raise DataError(
            f"{table}: none of its {len(ids):,} {task.unit} ids is in store {store.path}; "
            f"the store's look like {sorted(known)[:1]}"
        )
    if strangers:
        print_notice(
            f"{table}: {len(strangers):,} of {len(ids):,} {task.unit} ids are not in store {shown(store.path)}: "
            f"{strangers[0]!r}, for example; the store's look like {min(known)!r}"
        )
    return len(ids) - len(strangers)
