"""A table of labels for images or studies that a store holds already -> a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from embedstore.datasets.rows import as_text, read_rows, sort_classes
from embedstore.errors import DataError
from embedstore.task import UNIT_ID, Task, Unit


def read_label_task(path: Path, *, name: str, unit: Unit, targets: Sequence[str] = ()) -> Task:
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
        Label columns; all columns but the id by default. Their classes are shared: all labels of all targets,
        sorted, as numbers where all are numbers; with two classes the second is the positive one.

    Raises
    ------
    DataError
        If a column is missing, an id is empty or stands twice, or there are fewer than two classes.
    """
    rows = read_rows(path)
    key = f"{unit}_id"
    wanted = list(targets) or [column for column in rows.columns if column != key]
    for column in (key, *wanted):
        if column not in rows.columns:
            raise DataError(f"{path}: needs the column {column!r}; found {', '.join(rows.columns)}")
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
    classes = sort_classes({label for cells in labels.values() for label in cells if label is not None})
    columns = {UNIT_ID: pa.array(ids, pa.string())}
    columns |= {column: pa.array(cells, pa.string()) for column, cells in labels.items()}
    return Task(
        name=name,
        unit=unit,
        targets=tuple(wanted),
        classes=tuple(classes),
        labels=pa.table(columns),
        primary_metric="auroc",
    )
