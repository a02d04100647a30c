"""A table of labels for units (images, studies, ...) that a store holds already -> a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pyarrow as pa

from embedstore.datasets.table_rows import are_numbers, sort_classes
from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.tables.rows import Rows, as_text
from embedstore.tables.table_file import read_rows
from embedstore.task import Task, id_columns, require_unit, unit_id_of, unit_key

# More different labels are measurements or names.
_MAX_CLASSES = 64


def read_label_task(
    path: Path,
    *,
    name: str,
    unit: str,
    targets: Sequence[str] = (),
    classes: Sequence[str] = (),
    positive: str | None = None,
    ordered: bool = False,
    prepare: Callable[[Rows], Rows] | None = None,
) -> Task:
    """Read a task from a table with one row per unit.

    Parameters
    ----------
    path
        CSV, Parquet or JSON lines with the columns that name a unit: ``image_id``, ``study_id``, or those of `unit`.
    name
        Name of the task.
    unit
        What a row labels, as `embedstore.task.Task.unit`.
    targets
        Label columns; all columns but those of the unit by default. Their classes are shared.
    classes
        Classes in order, of two the positive one last; by default all labels of all targets, sorted, as
        numbers where all are numbers, and of two the `positive` one last.
    positive
        The class that one acts on; of two classes the last by default, of more none.
    ordered
        Whether the classes are grades, from the least to the gravest.
    prepare
        What is done to the table first: ids that somebody else uses become those of a store.

    Raises
    ------
    DataError
        If a column is missing or holds no label, an id is empty or stands twice, there are fewer than two classes
        or more than 64, `classes` lacks a label, two targets share no class, or `positive` is none of the classes.
    UsageError
        If the classes are ordered and neither are they named in order nor are they numbers.
    """
    require_unit(unit, where=f"task {name!r}")
    rows = read_rows(path)
    if prepare is not None:
        rows = prepare(rows)
    key = unit_key(unit)
    wanted = list(targets) or [column for column in rows.columns if column not in key]
    for column in (*key, *wanted):
        if column not in rows.columns:
            hint = did_you_mean(column, rows.columns)
            raise DataError(f"{path}: needs the column {column!r}; found {', '.join(rows.columns)}{hint}")
    if not wanted:
        raise DataError(f"{path}: needs a label column beside {', '.join(map(repr, key))}")
    ids = {column: [as_text(cell) for cell in rows.columns[column]] for column in key}
    _check_ids(rows, ids)
    labels = {column: [as_text(cell) for cell in rows.columns[column]] for column in wanted}
    found = {column: {label for label in cells if label is not None} for column, cells in labels.items()}
    _check_labels(path, found, classes)
    named = dict(zip(id_columns(unit), ids.values(), strict=True)) | labels
    return Task(
        name=name,
        unit=unit,
        targets=tuple(wanted),
        classes=tuple(classes) or _in_order(set().union(*found.values()), positive, ordered),
        labels=pa.table({column: pa.array(cells, pa.string()) for column, cells in named.items()}),
        primary_metric="auroc",
        ordered=ordered,
        positive=positive,
    )


def _check_ids(rows: Rows, ids: Mapping[str, Sequence[str | None]]) -> None:
    key, seen = tuple(ids), {""}
    for row, cells in enumerate(zip(*ids.values(), strict=True)):
        unit_id = unit_id_of(key, cells)
        if unit_id in seen:
            stated = ", ".join(f"{column} {cell!r}" for column, cell in zip(key, cells, strict=True))
            raise DataError(f"{rows.where(row)}: {stated} is empty or stands twice; one row per unit")
        seen.add(unit_id)


def _in_order(labels: set[str], positive: str | None, ordered: bool) -> tuple[str, ...]:
    """Return classes that were not named in order: sorted, and of two the positive one last."""
    found = sort_classes(labels)
    if ordered and len(found) > 2 and not are_numbers(found):
        raise UsageError(
            f"ordered classes that are no numbers must be named from the least to the gravest (classes); found "
            f"{', '.join(found)}"
        )
    return tuple(found[::-1] if len(found) == 2 and positive == found[0] else found)


def _check_labels(path: Path, found: Mapping[str, set[str]], classes: Sequence[str]) -> None:
    for column, labels in found.items():
        if not labels:
            raise DataError(f"{path}: column {column!r} holds no label")
        if len(labels) > _MAX_CLASSES:
            raise DataError(
                f"{path}: column {column!r} holds {len(labels)} different labels, {_MAX_CLASSES} at most; measurements "
                "must be put into a few classes first"
            )
        strange = sorted(labels - set(classes)) if classes else []
        if strange:
            raise DataError(
                f"{path}: column {column!r} holds {strange[:3]}, which are not among the classes {list(classes)}"
            )
    for one, other in combinations(found, 2):
        if not found[one] & found[other]:
            raise DataError(
                f"{path}: columns {one!r} and {other!r} share no class ({sorted(found[one])[:3]}, "
                f"{sorted(found[other])[:3]}); the targets of a task have the same classes: make a task of each"
            )
