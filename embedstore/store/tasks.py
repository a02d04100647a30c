"""Tasks kept beside the vectors: ``tasks/<name>/task.json`` and its labels."""

from __future__ import annotations

from pathlib import Path

from embedstore.errors import CorruptStore, DataError, UsageError, did_you_mean
from embedstore.files import (
    make_folder_durable,
    parquet_bytes,
    sha256_bytes,
    table_of_parquet,
    write_durable,
)
from embedstore.store.documents import read_document, write_document
from embedstore.store.layout import StoreLayout
from embedstore.task import Task, task_from_json

TASK_FILE = "task.json"
LABELS_FILE = "labels.parquet"


def task_names(root: Path) -> list[str]:
    """Return the names of the store's tasks, sorted."""
    folder = StoreLayout(root).tasks
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / TASK_FILE).exists())


def read_task(root: Path, name: str) -> Task:
    """Read a task and its labels.

    Raises
    ------
    UsageError
        If the store has no task of that name.
    CorruptStore
        If its files are not the ones that were written.
    """
    names = task_names(root)
    if name not in names:
        listed = ", ".join(names) or "none; add one with `embed label`"
        raise UsageError(f"store {root} has no task {name!r}; its tasks: {listed}{did_you_mean(name, names)}")
    folder = StoreLayout(root).tasks / name
    document, _ = read_document(folder / TASK_FILE)
    try:
        payload = (folder / LABELS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise CorruptStore(f"{folder / LABELS_FILE} is missing. Run: embed verify --repair") from error
    if sha256_bytes(payload) != document.pop("labels_sha256", None):
        raise CorruptStore(
            f"{folder / LABELS_FILE} was changed after it was written. Run: embed verify --repair"
        )
    try:
        return task_from_json(document, table_of_parquet(payload))
    except (KeyError, TypeError, DataError) as error:
        raise CorruptStore(f"{folder / TASK_FILE} is damaged: {error}. Run: embed verify --repair") from error


def write_task(root: Path, task: Task) -> None:
    """Write or replace a task; unchanged bytes are not written again."""
    folder = StoreLayout(root).tasks / task.name
    payload = parquet_bytes(task.labels)
    document = task.to_json() | {"labels_sha256": sha256_bytes(payload)}
    if holds_task(root, task):
        return
    make_folder_durable(folder)
    # task.json names the digest of its labels and comes last. A crash in between leaves labels that it
    # does not name: readers refuse them, and the next extract writes both again.
    write_durable(folder / LABELS_FILE, payload, label="labels")
    write_document(folder / TASK_FILE, document, label="task")


def holds_task(root: Path, task: Task) -> bool:
    """Whether the store holds exactly this task."""
    try:
        held = read_task(root, task.name)
    except (CorruptStore, UsageError):
        return False
    return held == task and held.labels.equals(task.labels)
