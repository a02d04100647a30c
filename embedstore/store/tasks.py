"""Tasks kept beside the vectors: ``tasks/<name>/task.json`` and its labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import Advice, CorruptStore, DataError, UsageError, did_you_mean
from embedstore.files import (
    StrPath,
    make_folder_durable,
    parquet_bytes,
    sha256_bytes,
    table_of_parquet,
    write_durable,
)
from embedstore.store.documents import read_document, write_document
from embedstore.store.layout import StoreLayout
from embedstore.task import Task, task_from_json, unit_id_of

TASK_FILE = "task.json"
LABELS_FILE = "labels.parquet"
Source = Literal["dataset", "label"]
DATASET: Source = "dataset"
LABEL: Source = "label"
_ID_COLUMNS = ("image_id", "patient_id", "study_id", "split")


def task_names(root: StrPath) -> list[str]:
    """Return the names of the store's tasks, sorted.

    Examples
    --------
    >>> es.task_names("mura.store")
    ['abnormal']
    """
    folder = StoreLayout(Path(root)).tasks
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / TASK_FILE).exists())


def read_task(root: StrPath, name: str) -> Task:
    """Read a task and its labels.

    Raises
    ------
    UsageError
        If the store has no task of that name.
    CorruptStore
        If its files are not the ones that were written.

    Examples
    --------
    >>> es.read_task("mura.store", "abnormal").classes
    ('normal', 'abnormal')
    """
    names = task_names(root)
    if name not in names:
        raise UsageError(
            f"store {root} has no task {name!r}; its tasks: {', '.join(names) or 'none'}{did_you_mean(name, names)}",
            advice=None if names else Advice.ADD_TASK,
        )
    folder = StoreLayout(Path(root)).tasks / name
    document, _ = read_document(folder / TASK_FILE)
    try:
        payload = (folder / LABELS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise CorruptStore(f"{folder / LABELS_FILE} is missing", advice=Advice.REPAIR) from error
    if sha256_bytes(payload) != document.pop("labels_sha256", None):
        raise CorruptStore(f"{folder / LABELS_FILE} was changed after it was written", advice=Advice.REPAIR)
    try:
        return task_from_json(document, table_of_parquet(payload))
    except (KeyError, TypeError, DataError) as error:
        raise CorruptStore(f"{folder / TASK_FILE} is damaged: {error}", advice=Advice.REPAIR) from error


def write_task(root: StrPath, task: Task, *, source: Source = LABEL) -> None:
    """Write or replace a task; unchanged bytes are not written again.

    Parameters
    ----------
    root
        Folder of the store.
    task
        The task.
    source
        Where it is from: ``dataset`` for what a data set brings, which extraction keeps up to date, else ``label``,
        which extraction leaves alone.

    Examples
    --------
    >>> import pyarrow as pa
    >>> patients = store.table.column("patient_id").to_pylist()
    >>> labels = pa.table({
    ...     "unit_id": store.table.column("image_id"),
    ...     "even": ["even" if int(patient[-1]) % 2 == 0 else "odd" for patient in patients],
    ... })
    >>> task = es.Task("parity", "image", ("even",), ("odd", "even"), labels)
    >>> es.write_task("mura.store", task)
    >>> es.read_task("mura.store", "parity").targets
    ('even',)
    """
    folder = StoreLayout(Path(root)).tasks / task.name
    payload = parquet_bytes(task.labels)
    document = task.to_json() | {"source": source, "labels_sha256": sha256_bytes(payload)}
    if holds_task(root, task) and task_source(root, task.name) == source:
        return
    make_folder_durable(folder)
    # task.json names the digest of its labels and comes last. A crash in between leaves labels that it
    # does not name: readers refuse them, and the next extract writes both again.
    write_durable(folder / LABELS_FILE, payload, label="labels")
    write_document(folder / TASK_FILE, document, label="task")


def holds_task(root: StrPath, task: Task) -> bool:
    """Whether the store holds exactly this task."""
    try:
        held = read_task(root, task.name)
    except (CorruptStore, UsageError):
        return False
    return held == task and held.labels.equals(task.labels)


def task_source(root: StrPath, name: str) -> Source | None:
    """Return where a task is from; None if the store has no readable task of that name.

    Tasks from before ``source`` existed count as the data set's.
    """
    try:
        document, _ = read_document(StoreLayout(Path(root)).tasks / name / TASK_FILE)
    except (CorruptStore, FileNotFoundError):
        return None
    return LABEL if document.get("source") == LABEL else DATASET


def with_ids(manifest: pa.Table, columns: Sequence[str], *, holder: str) -> pa.Table:
    """Return the columns of a manifest that name an image, its study, patient and split, and `columns` after them.

    Raises
    ------
    UsageError
        If there is no such column.
    """
    known = manifest.column_names
    for name in columns:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"{holder} has no column {name!r}; it has {', '.join(known)}{hint}")
    return manifest.select(list(dict.fromkeys([*_ID_COLUMNS, *columns])))


def with_vectors(table: pa.Table, vectors: npt.NDArray[np.float32]) -> pa.Table:
    """Return a table with one more column ``vector`` of lists; one of that name, or ``vector_``, gets a ``_`` more."""
    own = [f"{name}_" if name.rstrip("_") == "vector" else name for name in table.column_names]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return table.rename_columns(own).append_column("vector", column)


def with_labels(table: pa.Table, task: Task, manifest: pa.Table) -> pa.Table:
    """Return a table of images with one more column of class names for each target, null where there is no label.

    Parameters
    ----------
    table
        One row for each image.
    task
        The task.
    manifest
        The same rows with all columns, of which some name the task's units.

    Raises
    ------
    UsageError
        If the manifest lacks a column that names units, or a target is named like a column of the table.
    """
    key = task.unit_key
    for name in key:
        if name not in manifest.column_names:
            raise UsageError(
                f"task {task.name!r} names its units by the column {name!r}, which the store lacks"
            )
    for target in task.targets:
        if target in table.column_names:
            raise UsageError(
                f"`columns` must leave {target!r} out: task {task.name!r} has a target of that name"
            )
    cells = zip(*(manifest.column(name).cast(pa.string()).to_pylist() for name in key), strict=True)
    row_of = {unit: row for row, unit in enumerate(task.unit_ids)}
    rows = pa.array([row_of.get(unit_id_of(key, row)) for row in cells], pa.int64())
    for target in task.targets:
        table = table.append_column(target, task.labels.column(target).take(rows))
    return table
