"""Stores + task -> views: the vectors of the images with their labels, in arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError
from embedstore.files import StrPath
from embedstore.finetuned.trained_patients import parts_in_training
from embedstore.queries.conditions import Where, parse_conditions
from embedstore.queries.manifest_columns import (
    chosen_rows,
    column_text,
    image_mask,
    own_unit_names,
    patient_names,
    require_columns,
    unit_names,
)
from embedstore.queries.opened_stores import only_task, require_disjoint
from embedstore.queries.subgroup_columns import cells_of_units, subgroup_columns
from embedstore.store.reader import PENDING, Store, as_store
from embedstore.store.tasks import read_task
from embedstore.task import ImageRule, Task, join_tasks, unit_key
from embedstore.view import MISSING, Units, View, units_spoken_for

# Columns that say what kind of image it is, whatever the head gets.
KINDS = ("modality", "body_part")
# In `View.excluded`: images that a list names.
LEFT_OUT = "left out"


def load_view(
    store: Store | StrPath,
    task_name: str | None = None,
    *,
    with_columns: Sequence[str] = (),
    subgroups: Sequence[str] = (),
) -> View:
    """Join a store's vectors with one of its tasks.

    An image that speaks for none of the targets (`embedstore.task.Task.images_of_target`) is left out, and a label of
    a unit that has no image for its target counts as missing; both are counted in ``excluded``.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    task_name, with_columns, subgroups
        As `load_views`.

    Raises
    ------
    UsageError
        If the task is not in the store, or has to be named, or the store has no such column, nor one of the task's
        unit or image rules.
    DataError
        If the task fits none of the store's images, or a unit belongs to two patients or splits.
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
    return load_views([store], task_name, with_columns=with_columns, subgroups=subgroups)


def load_views(
    stores: Sequence[Store | StrPath],
    task_name: str | None = None,
    *,
    with_columns: Sequence[str] = (),
    subgroups: Sequence[str] = (),
    image_rules: Mapping[str, ImageRule] | None = None,
    left_out: Collection[str] = (),
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
    subgroups
        Manifest columns by which results are split, beside those that the task names.
    image_rules
        Target -> which images speak for it, in place of what the task says.
    left_out
        Ids of images to pass over; counted in ``excluded``.

    Raises
    ------
    IdentityMismatch
        If the stores hold vectors of different identities.
    UsageError
        If a store lacks the task, or the task has to be named, or no store has a column that is asked for or that
        the task's unit or image rules name.
    DataError
        If an image is in two stores, the tasks differ (`embedstore.task.join_tasks`), the task fits none of the
        images, or a unit belongs to two patients or splits.
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
    name = task_name or only_task(opened[0])
    task = join_tasks(
        [read_task(store.path, name) for store in opened], [str(store.path) for store in opened]
    )
    if image_rules is not None:
        task = replace(task, images_of_target=dict(image_rules))
    of_rules = [rule.column for rule in task.images_of_target.values()]
    require_columns(opened, [*with_columns, *subgroups, *task.unit_key, *of_rules])
    task = replace(task, subgroups=tuple(dict.fromkeys([*task.subgroups, *subgroups])))
    split_by = subgroup_columns(task, opened)
    images = _join([_load_labelled(store, task, [*with_columns, *split_by], left_out) for store in opened])
    if not len(images.image_ids):
        listed = ", ".join(str(store.path) for store in opened)
        raise DataError(
            f"task {task.name!r} labels {len(task.labels):,} {task.unit} ids, but none of them is among the "
            f"{images.excluded[_no_label(task)]:,} extracted images of store {listed}"
        )
    unit_ids, first, unit_of_image = _in_order(images.units)
    for what, cells in (("patient", images.patients), ("split", images.columns["split"])):
        _require_constant(cells, unit_of_image, first, unit_ids, name=what, unit=task.unit)
    patients = images.patients[first]
    y, lost = _answerable(_codes(task, images.label_rows[first]), images.image_of_target, unit_of_image)
    return View(
        task=task,
        identity=opened[0].identity,
        X=images.X,
        image_ids=images.image_ids,
        content_sha256=images.content_sha256,
        unit_of_image=unit_of_image,
        unit_ids=unit_ids,
        metadata={column: images.columns[column] for column in with_columns},
        image_of_target=images.image_of_target,
        y=y,
        patients=patients,
        splits=images.columns["split"][first],
        subgroups={
            column: cells_of_units(images.columns[column], unit_of_image, first) for column in split_by
        },
        excluded={
            **images.excluded,
            **(
                {}
                if lost is None
                else {"label without an image for its target": int((lost != MISSING).sum())}
            ),
        },
        y_without_image=lost,
        sources=tuple(source for store in opened for source in store.sources),
        store_dtype=str(np.result_type(*(store.dtype for store in opened))),
        image_kinds={column: images.columns[column] for column in KINDS},
        trained=parts_in_training(opened[0].path, opened[0].identity, patients.tolist()),
    )


def load_units(
    store: Store | StrPath,
    unit: str,
    *,
    with_columns: Sequence[str] = (),
    image_rules: Sequence[ImageRule | None] = (),
    ids: Sequence[str] = (),
    where: Where = (),
) -> Units:
    """Group a store's vectors into units; an image without a value of the unit's key is a unit of its own.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    unit
        As `embedstore.task.Task.unit`.
    with_columns
        Manifest columns for `Units.metadata`.
    image_rules
        Which images speak for each target (`embedstore.task.Task.image_rules`); all for all by default.
    ids
        Only the units of these ids, and those of the images of these ids; all by default.
    where
        Only images that meet these conditions (`embedstore.queries.conditions`).

    Raises
    ------
    UsageError
        If the store has no column of `with_columns`, of the unit, of the rules or of a condition.
    DataError
        If the store has no unit or image of one of `ids` with a vector, or the conditions leave none.
    CorruptStore
        If the store's bytes are not the committed ones.

    Examples
    --------
    >>> studies = es.load_units("mura.store", "study")
    >>> len(studies.unit_ids) < len(studies.image_ids)
    True
    """
    store = as_store(store)
    of_rules = [rule.column for rule in image_rules if rule is not None]
    require_columns([store], [*with_columns, *unit_key(unit), *of_rules])
    embeddings = store.embeddings(dtype=np.float32)
    table = store.table.take(pa.array(embeddings.rows))
    names, vectors, rows = own_unit_names(table, unit), embeddings.vectors, embeddings.rows
    # Of all images: where one lies follows from the others of its study.
    cells = {name: column_text(table, name) for name in with_columns}
    if ids or where:
        kept = chosen_rows(store, table, names, ids=ids, where=parse_conditions(where))
        table, names, vectors, rows = table.take(pa.array(kept)), names[kept], vectors[kept], rows[kept]
        cells = {name: of_images[kept] for name, of_images in cells.items()}
    unit_ids, _, unit_of_image = _in_order(names)
    return Units(
        X=vectors,
        image_ids=store.image_ids[rows].astype(np.str_),
        content_sha256=store.content_sha256()[rows],
        unit_of_image=unit_of_image,
        unit_ids=unit_ids,
        metadata=cells,
        image_of_target=image_mask(table, image_rules),
    )


@dataclass(frozen=True)
class _LabelledImages:
    """The labelled images of a store, before they are grouped into units.

    Parameters
    ----------
    X, image_ids, content_sha256, image_of_target
        As `View`.
    units
        (n_images,) str: the id of each image's unit.
    label_rows
        (n_images,) int64: row of the unit in the task's labels.
    patients
        (n_images,) str.
    columns
        ``split`` and further columns of the manifest, ``""`` where the store lacks one.
    excluded
        Why images of the store are not here -> how many.
    """

    X: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    content_sha256: npt.NDArray[np.uint8]
    units: npt.NDArray[np.str_]
    label_rows: npt.NDArray[np.int64]
    patients: npt.NDArray[np.str_]
    columns: Mapping[str, npt.NDArray[np.str_]]
    image_of_target: npt.NDArray[np.bool_] | None
    excluded: Counter[str]


def _load_labelled(
    store: Store, task: Task, columns: Sequence[str], left_out: Collection[str]
) -> _LabelledImages:
    embeddings = store.embeddings(dtype=np.float32)
    table = store.table.take(pa.array(embeddings.rows))
    excluded = Counter(f"failed: {failure.reason.value}" for failure in store.failures)
    pending = int((store.status == PENDING).sum())
    if pending:
        excluded["not extracted yet"] = pending
    units = unit_names(table, task.unit)
    labels = {unit: row for row, unit in enumerate(task.unit_ids)}
    label_rows = np.array([labels.get(unit, -1) for unit in units], dtype=np.int64)
    labelled = label_rows >= 0
    mask = image_mask(table, task.image_rules)
    speaking = labelled if mask is None else labelled & mask.any(axis=1)
    wanted = speaking & ~np.isin(embeddings.image_ids.astype(np.str_), list(left_out))
    kept = np.flatnonzero(wanted)
    if wanted.sum() < speaking.sum():
        excluded[LEFT_OUT] = int(speaking.sum() - wanted.sum())
    if not labelled.all():
        excluded[_no_label(task)] = int((~labelled).sum())
    if speaking.sum() < labelled.sum():
        excluded[f"image for no target of task {task.name}"] = int(labelled.sum() - speaking.sum())
    return _LabelledImages(
        # Not copied where every image is kept: they are the largest array of a probe.
        X=embeddings.vectors if len(kept) == len(units) else embeddings.vectors[kept],
        image_ids=embeddings.image_ids[kept].astype(np.str_),
        content_sha256=store.content_sha256()[embeddings.rows[kept]],
        units=units[kept],
        label_rows=label_rows[kept],
        patients=patient_names(table, task.unit)[kept],
        columns={name: column_text(table, name)[kept] for name in {"split", *KINDS, *columns}},
        image_of_target=None if mask is None else mask[kept],
        excluded=excluded,
    )


def _join(pieces: Sequence[_LabelledImages]) -> _LabelledImages:
    """Return the images of several stores, one store after the other."""
    if len(pieces) == 1:
        return pieces[0]

    def stacked(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(piece, name) for piece in pieces])

    return _LabelledImages(
        X=stacked("X"),
        image_ids=stacked("image_ids"),
        content_sha256=stacked("content_sha256"),
        units=stacked("units"),
        label_rows=stacked("label_rows"),
        patients=stacked("patients"),
        columns={
            name: np.concatenate([piece.columns[name] for piece in pieces]) for name in pieces[0].columns
        },
        image_of_target=None if pieces[0].image_of_target is None else stacked("image_of_target"),
        excluded=sum((piece.excluded for piece in pieces), Counter[str]()),
    )


def _no_label(task: Task) -> str:
    return f"no label in task {task.name}"


def _answerable(
    y: npt.NDArray[np.int64],
    image_of_target: npt.NDArray[np.bool_] | None,
    unit_of_image: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """Return the labels without those that no image of the unit speaks for, and these alone; None where none is."""
    if image_of_target is None:
        return y, None
    lost = (y != MISSING) & ~units_spoken_for(image_of_target, unit_of_image, len(y))
    return np.where(lost, MISSING, y), np.where(lost, y, MISSING) if lost.any() else None


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
