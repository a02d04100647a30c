"""``embed label``: add a task to a store from a table."""

from __future__ import annotations

from pathlib import Path

import click

from cli.jobs.label_store import LabelJob, label_store
from cli.key_options import by_option
from cli.options import ProjectCommand, json_option, plural, print_json, print_notice, require, store_argument


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
@by_option
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
    by: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Add a task to a store, or replace it, from a table with one row per image, study or other unit.

    \b
    Example:
      embed label mura.store --name hardware --csv hardware.csv --unit study --positive yes
      embed label --name fracture --csv ris.csv --target fracture --by AccessionNumber --key-file hospital.key
    """
    job = LabelJob(
        table=table,
        name=name,
        unit=unit,
        targets=target,
        classes=classes.split(",") if classes else (),
        positive=positive,
        ordered=ordered,
        by=by,
        key_file=key_file,
    )
    done = label_store(require(store_argument or store, "--store"), job, notify=print_notice)
    task, rows = done.task, done.task.labels.num_rows
    if as_json:
        print_json({**task.to_json(), "rows": rows, "in_store": done.in_store, "labelled": done.labels})
    else:
        counted = ", ".join(f"{target} {count:,}" for target, count in done.labels.items())
        click.echo(f"task {name}: {plural(rows, 'row')}, {done.in_store:,} in the store; labels: {counted}")
        in_order = " in order" if task.ordered else ""
        acted_on = f"; positive: {task.positive}" if task.positive else ""
        click.echo(f"classes{in_order} {', '.join(task.classes)}{acted_on}")
