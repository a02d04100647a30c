"""Store + task -> arrays: what a head needs to know, and nothing about files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError
from embedstore.identity import Identity
from embedstore.store.reader import PENDING, Store
from embedstore.store.tasks import read_task, task_names
from embedstore.task import UNIT_ID, Task

MISSING = -1


@dataclass(frozen=True)
class View:
    """The labelled units of one task with the vectors of their images.

    Images are in store order; units (images or studies) are in order of their first image.

    Parameters
    ----------
    task
        The task; its label table is not needed any more.
    identity
        What the vectors are.
    X
        (n_images, dim) float32, un-normalised; every row finite.
    image_ids
        (n_images,) str.
    content_sha256
        (n_images, 32) uint8: digest of each image's decoded pixels.
    unit_of_image
        (n_images,) int64: row of the unit that the image belongs to.
    unit_ids
        (n_units,) str: image_id or study_id.
    y
        (n_units, n_targets) int64: index into ``task.classes``, `MISSING` where there is no label.
    patients
        (n_units,) str.
    splits
        (n_units,) str: ``train``, ``valid``, ``test``, or ``""`` where there is no official split.
    subgroups
        Name -> (n_units,) str, ``""`` where unknown.
    excluded
        Why images or units of the store are not here -> how many (``"failed: unreadable"``).
    """

    task: Task
    identity: Identity
    X: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    content_sha256: npt.NDArray[np.uint8]
    unit_of_image: npt.NDArray[np.int64]
    unit_ids: npt.NDArray[np.str_]
    y: npt.NDArray[np.int64]
    patients: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    subgroups: Mapping[str, npt.NDArray[np.str_]]
    excluded: Mapping[str, int]


def load_view(store: Store, task_name: str | None = None) -> View:
    """Join a store's vectors with one of its tasks.

    Parameters
    ----------
    store
        The opened store.
    task_name
        The task; may be None when the store has exactly one.

    Raises
    ------
    UsageError
        If the task is not in the store, or has to be named.
    DataError
        If the task fits none of the store's images, or a study belongs to two patients or splits.
    CorruptStore
        If the store's bytes are not the committed ones.
    """
    task = read_task(store.path, task_name or _only_task(store))
    embeddings = store.embeddings(dtype=np.float32)
    table = store.table.take(pa.array(embeddings.rows))
    excluded = Counter(f"failed: {failure.reason.value}" for failure in store.failures)
    pending = int((store.status == PENDING).sum())
    if pending:
        excluded["not extracted yet"] = pending
    image_units = _strings(table, "image_id" if task.unit == "image" else "study_id")
    labels = {unit: row for row, unit in enumerate(task.labels.column(UNIT_ID).to_pylist())}
    label_rows = np.array([labels.get(unit, -1) for unit in image_units], dtype=np.int64)
    unlabelled = int((label_rows < 0).sum())
    if unlabelled:
        excluded[f"no label in task {task.name}"] = unlabelled
    kept = np.flatnonzero(label_rows >= 0)
    if not len(kept):
        raise DataError(
            f"task {task.name!r} labels {len(labels):,} {task.unit} ids, but none of them is among the "
            f"{len(image_units):,} extracted images of store {store.path}"
        )
    unit_ids, first, unit_of_image = _in_order(image_units[kept])
    patients = _patients(table, task.unit)[kept]
    splits = _strings(table, "split")[kept]
    for name, cells in (("patient", patients), ("split", splits)):
        _require_constant(cells, unit_of_image, first, unit_ids, name=name, unit=task.unit)
    return View(
        task=task,
        identity=store.identity,
        X=embeddings.vectors[kept],
        image_ids=embeddings.image_ids[kept].astype(np.str_),
        content_sha256=store.content_sha256()[embeddings.rows[kept]],
        unit_of_image=unit_of_image,
        unit_ids=unit_ids,
        y=_codes(task, label_rows[kept][first]),
        patients=patients[first],
        splits=splits[first],
        subgroups={
            name: _strings(table, name)[kept][first] for name in task.subgroups if name in table.column_names
        },
        excluded=dict(excluded),
    )


def _only_task(store: Store) -> str:
    names = task_names(store.path)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError(f"store {store.path} has no task; add one with `embed label`")
    raise UsageError(f"--task is needed: store {store.path} has {', '.join(names)}")


def _strings(table: pa.Table, name: str) -> npt.NDArray[np.str_]:
    cells = table.column(name).cast(pa.string()).to_pylist()
    return np.array(["" if cell is None else cell for cell in cells], dtype=np.str_)


def _patients(table: pa.Table, unit: str) -> npt.NDArray[np.str_]:
    """Return each image's patient; an image without one counts as a patient of its own."""
    patients = _strings(table, "patient_id")
    own = _strings(table, "study_id" if unit == "study" else "image_id")
    return np.where(patients == "", np.char.add("only ", own), patients)


def _in_order(
    keys: npt.NDArray[np.str_],
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return unique keys in order of first appearance, where each appears first, and each row's key number."""
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return unique[order], first[order].astype(np.int64), rank[inverse].astype(np.int64)


def _require_constant(
    cells: npt.NDArray[np.str_],
    unit_of_image: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    unit_ids: npt.NDArray[np.str_],
    *,
    name: str,
    unit: str,
) -> None:
    strangers = np.flatnonzero(cells != cells[first][unit_of_image])
    if len(strangers):
        row = int(strangers[0])
        own = unit_of_image[row]
        one, other = str(cells[first][own]), str(cells[row])
        raise DataError(
            f"{unit} {str(unit_ids[own])!r} has images of more than one {name}: {one!r} and {other!r}"
        )


def _codes(task: Task, label_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    code: dict[str | None, int] = {
        None: MISSING,
        **{label: number for number, label in enumerate(task.classes)},
    }
    columns = [
        np.array([code[cell] for cell in task.labels.column(target).to_pylist()], dtype=np.int64)[label_rows]
        for target in task.targets
    ]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Units:
    """Every unit of a store, labelled or not.

    Parameters
    ----------
    X
        (n_images, dim) float32, un-normalised; every row finite.
    image_ids
        (n_images,) str.
    unit_of_image
        (n_images,) int64.
    unit_ids
        (n_units,) str, in order of their first image.
    """

    X: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    unit_of_image: npt.NDArray[np.int64]
    unit_ids: npt.NDArray[np.str_]


def load_units(store: Store, unit: str) -> Units:
    """Group a store's vectors into images or studies; an image without a study is a unit of its own."""
    embeddings = store.embeddings(dtype=np.float32)
    table = store.table.take(pa.array(embeddings.rows))
    names = _strings(table, "image_id")
    if unit == "study":
        studies = _strings(table, "study_id")
        names = np.where(studies == "", names, studies)
    unit_ids, _, unit_of_image = _in_order(names)
    return Units(embeddings.vectors, embeddings.image_ids.astype(np.str_), unit_of_image, unit_ids)
