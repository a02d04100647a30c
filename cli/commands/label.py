"""``embed label``: add a task to a store from a table."""

from __future__ import annotations

from pathlib import Path

import click

from cli.dataset_options import findings_options
from cli.jobs.label_store import LabelJob, label_store
from cli.key_options import by_option
from cli.options import (
    ProjectCommand,
    json_option,
    plural,
    print_facts,
    print_json,
    print_notice,
    require,
    store_argument,
)
from cli.printing.next_command import print_next_probe
from cli.wording import for_command_line
from embedstore.labels.states import FINDING_CLASSES
from embedstore.task import Task


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
    help="Classes in order; of two the second is the positive one.  [default: numbers and words for grades in their "
    "order, else sorted; no or normal first]",
)
@click.option(
    "--positive",
    metavar="CLASS",
    help="Class that one acts on, for decision curves and reliability.  [default: of two the second, else none]",
)
@findings_options
@click.option(
    "--ordered",
    is_flag=True,
    help="Classes are grades, from the least to the gravest: quadratic kappa is stated. Numbers and words for grades "
    "(mild, BI-RADS 4A, KL 2, IV) need no --classes.",
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
    label_separator: str | None,
    uncertain: str | None,
    empty: str,
    missing: tuple[str, ...],
    as_written: tuple[str, ...],
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
        separator=label_separator,
        uncertain=uncertain,
        empty=empty,
        missing=missing,
        as_written=as_written,
        by=by,
        key_file=key_file,
    )
    path = Path(require(store_argument or store, "--store"))
    done = label_store(path, job, notify=print_notice)
    task, rows = done.task, done.task.labels.num_rows
    facts = {
        fact: for_command_line(str(said)) for fact, said in done.facts.items() if fact != f"task {task.name}"
    }
    if as_json:
        print_json(
            {
                **task.to_json(),
                "rows": rows,
                "in_store": done.in_store,
                "labelled": done.labels,
                "facts": facts,
            }
        )
    else:
        counted = ", ".join(f"{target} {count:,}" for target, count in done.labels.items())
        click.echo(f"task {name}: {plural(rows, 'row')}, {done.in_store:,} in the store; labels: {counted}")
        in_order = " in order" if task.ordered else ""
        click.echo(
            f"classes{in_order} {', '.join(task.classes)}{_acted_on(task, asked=bool(classes or positive))}"
        )
        print_facts(facts)
        print_next_probe(path, task=name)


def _acted_on(task: Task, *, asked: bool) -> str:
    """Say which class is positive, and how to turn two classes round that nobody named."""
    if task.positive is None:
        return ""
    swap = len(task.classes) == 2 and not asked and task.classes != FINDING_CLASSES
    hint = for_command_line(f" (`positive='{task.classes[0]}'` swaps)") if swap else ""
    return f"; positive: {task.positive}{hint}"
