"""A table of labels for images or studies that a store holds already -> a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pyarrow as pa

from embedstore.datasets.table_rows import as_text, read_rows, sort_classes
from embedstore.errors import DataError, did_you_mean
from embedstore.task import UNIT_ID, Task, Unit

# More different labels are measurements or names.
_MAX_CLASSES = 64


def read_label_task(
    path: Path, *, name: str, unit: Unit, targets: Sequence[str] = (), classes: Sequence[str] = ()
) -> Task:
    """Read a task from a table with one row per image or study.

    Parameters
    ----------
    path
        CSV, Parquet or JSON lines with a column ``image_id`` or ``study_id``.
    name
        Name of the task.
    unit
        What a row labels.
    targets
        Label columns; all columns but the id by default. Their classes are shared.
    classes
        Classes in order, with two the positive one last; by default all labels of all targets, sorted, as
        numbers where all are numbers.

    Raises
    ------
    DataError
        If a column is missing or holds no label, an id is empty or stands twice, there are fewer than two classes
        or more than 64, `classes` lacks a label, or two targets share no class.
    """
    rows = read_rows(path)
    key = f"{unit}_id"
    wanted = list(targets) or [column for column in rows.columns if column != key]
    for column in (key, *wanted):
        if column not in rows.columns:
            hint = did_you_mean(column, rows.columns)
            raise DataError(f"{path}: needs the column {column!r}; found {', '.join(rows.columns)}{hint}")
    if not wanted:
        raise DataError(f"{path}: needs a label column beside {key!r}")
    ids = [as_text(cell) for cell in rows.columns[key]]
    seen: set[str | None] = {None}
    for row, unit_id in enumerate(ids):
        if unit_id in seen:
            raise DataError(
                f"{rows.where(row)}: {key} {unit_id!r} is empty or stands twice; one row per {unit}"
            )
        seen.add(unit_id)
    labels = {column: [as_text(cell) for cell in rows.columns[column]] for column in wanted}
    found = {column: {label for label in cells if label is not None} for column, cells in labels.items()}
    _check_labels(path, found, classes)
    ordered = list(classes) or sort_classes(set().union(*found.values()))
    columns = {UNIT_ID: pa.array(ids, pa.string())}
    columns |= {column: pa.array(cells, pa.string()) for column, cells in labels.items()}
    return Task(
        name=name,
        unit=unit,
        targets=tuple(wanted),
        classes=tuple(ordered),
        labels=pa.table(columns),
        primary_metric="auroc",
    )


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
