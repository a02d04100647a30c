"""Stores + task -> views: the vectors of the images with their labels, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import Advice, DataError, UsageError
from embedstore.files import StrPath
from embedstore.queries.labelled_images import (
    column_text,
    join_images,
    load_labelled_images,
    no_label,
    require_columns,
    require_disjoint,
)
from embedstore.store.reader import FAILED, PENDING, VALID, Store, as_store
from embedstore.store.tasks import read_task, task_names
from embedstore.task import Task, join_tasks
from embedstore.view import MISSING, Units, View


def load_view(
    store: Store | StrPath, task_name: str | None = None, *, with_columns: Sequence[str] = ()
) -> View:
    """Join a store's vectors with one of its tasks.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    task_name
        The task; may be None when the store has exactly one.
    with_columns
        Manifest columns for `View.metadata`.

    Raises
    ------
    UsageError
        If the task is not in the store, or has to be named, or the store has no such column.
    DataError
        If the task fits none of the store's images, or a study belongs to two patients or splits.
    CorruptStore
        If the store's bytes are not the committed ones.

    Examples
    --------
    >>> view = es.load_view("mura.store", "abnormal")
    >>> view.X.shape[1], view.task.classes
    (1152, ('normal', 'abnormal'))
    >>> view.y.shape == (len(view.unit_ids), 1)
    True
    """
    return load_views([store], task_name, with_columns=with_columns)


def load_views(
    stores: Sequence[Store | StrPath], task_name: str | None = None, *, with_columns: Sequence[str] = ()
) -> View:
    """Join the vectors of several stores with the task that each of them has.

    A patient id, study id or image id means the same in every store. A column that some store lacks is ``""``
    there.

    Parameters
    ----------
    stores
        One or more stores of one identity, opened or by their folders, without an image in common.
    task_name
        The task; may be None when the first store has exactly one.
    with_columns
        Manifest columns for `View.metadata`.

    Raises
    ------
    IdentityMismatch
        If the stores hold vectors of different identities.
    UsageError
        If a store lacks the task, or the task has to be named, or no store has a column.
    DataError
        If an image is in two stores, the tasks differ (`embedstore.task.join_tasks`), the task fits none of the
        images, or a study belongs to two patients or splits.
    CorruptStore
        If a store's bytes are not the committed ones.

    Examples
    --------
    >>> view = es.load_views(["mura.store"], "abnormal", with_columns=["anatomy"])
    >>> sorted(view.metadata)
    ['anatomy']
    """
    opened = [as_store(store) for store in stores]
    for other in opened[1:]:
        opened[0].identity.require_same(other.identity, holder=f"store {opened[0].path}")
    require_disjoint(opened)
    name = task_name or _only_task(opened[0])
    task = join_tasks(
        [read_task(store.path, name) for store in opened], [str(store.path) for store in opened]
    )
    require_columns(opened, with_columns)
    images = join_images([load_labelled_images(store, task, with_columns) for store in opened])
    if not len(images.image_ids):
        listed = ", ".join(str(store.path) for store in opened)
        raise DataError(
            f"task {task.name!r} labels {len(task.labels):,} {task.unit} ids, but none of them is among the "
            f"{images.excluded[no_label(task)]:,} extracted images of store {listed}"
        )
    unit_ids, first, unit_of_image = _in_order(images.units)
    for what in ("patient", "split"):
        _require_constant(images.cells[what], unit_of_image, first, unit_ids, name=what, unit=task.unit)
    return View(
        task=task,
        identity=opened[0].identity,
        X=images.X,
        image_ids=images.image_ids,
        content_sha256=images.content_sha256,
        unit_of_image=unit_of_image,
        unit_ids=unit_ids,
        y=_codes(task, images.label_rows[first]),
        patients=images.cells["patient"][first],
        splits=images.cells["split"][first],
        subgroups={
            column: images.columns[column][first]
            for column in task.subgroups
            if any(column in store.table.column_names for store in opened)
        },
        excluded=dict(images.excluded),
        metadata={column: images.columns[column] for column in with_columns},
        sources=tuple(source for store in opened for source in store.sources),
    )


def load_units(store: Store | StrPath, unit: str, *, with_columns: Sequence[str] = ()) -> Units:
    """Group a store's vectors into images or studies; an image without a study is a unit of its own.

    Raises
    ------
    UsageError
        If the store has no column of `with_columns`.
    CorruptStore
        If the store's bytes are not the committed ones.

    Examples
    --------
    >>> studies = es.load_units("mura.store", "study")
    >>> len(studies.unit_ids) < len(studies.image_ids)
    True
    """
    store = as_store(store)
    require_columns([store], with_columns)
    embeddings = store.embeddings(dtype=np.float32)
    table = store.table.take(pa.array(embeddings.rows))
    unit_ids, _, unit_of_image = _in_order(_unit_names(table, unit))
    metadata = {name: column_text(table, name) for name in with_columns}
    return Units(
        embeddings.vectors,
        embeddings.image_ids.astype(np.str_),
        store.content_sha256()[embeddings.rows],
        unit_of_image,
        unit_ids,
        metadata,
    )


@dataclass(frozen=True)
class Lacking:
    """Images of a store without a vector, and the units that they belong to.

    Parameters
    ----------
    pending, failed
        Images that are not extracted yet; that gave no vector.
    absent
        Units without any vector, which `load_units` leaves out.
    partial
        Units that have vectors of some of their images only.
    """

    pending: int
    failed: int
    absent: int
    partial: int


def lacking_units(store: Store, unit: str) -> Lacking:
    """Count what `load_units` cannot give, because images are pending or failed."""
    if not store.parts:
        return Lacking(0, 0, 0, 0)
    names, held = _unit_names(store.table, unit), store.status == VALID
    without, having = set(names[~held].tolist()), set(names[held].tolist())
    return Lacking(
        pending=int((store.status == PENDING).sum()),
        failed=int((store.status == FAILED).sum()),
        absent=len(without - having),
        partial=len(without & having),
    )


def _only_task(store: Store) -> str:
    names = task_names(store.path)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError(f"store {store.path} has no task", advice=Advice.ADD_TASK)
    raise UsageError(f"`task_name` is needed: store {store.path} has {', '.join(names)}")


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


def _unit_names(table: pa.Table, unit: str) -> npt.NDArray[np.str_]:
    """Return the image or study that each row belongs to; an image without a study is a unit of its own."""
    names = column_text(table, "image_id")
    if unit != "study":
        return names
    studies = column_text(table, "study_id")
    return np.where(studies == "", names, studies)
