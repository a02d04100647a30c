"""The labelled images of a store with their vectors, before a view makes units of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.store.reader import PENDING, Store
from embedstore.task import UNIT_ID, Task
from embedstore.view import UNKNOWN_PATIENT

_SHOWN = 3


@dataclass(frozen=True)
class LabelledImages:
    """The labelled images of one store.

    Parameters
    ----------
    X, image_ids, content_sha256
        As `View`.
    units
        (n_images,) str: the id of each image's unit.
    label_rows
        (n_images,) int64: row of the unit in the task's labels.
    cells
        ``patient`` and ``split`` of each image.
    columns
        Further columns of the manifest, ``""`` where the store lacks one.
    excluded
        Why images of the store are not here -> how many.
    """

    X: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    content_sha256: npt.NDArray[np.uint8]
    units: npt.NDArray[np.str_]
    label_rows: npt.NDArray[np.int64]
    cells: Mapping[str, npt.NDArray[np.str_]]
    columns: Mapping[str, npt.NDArray[np.str_]]
    excluded: Counter[str]


def load_labelled_images(store: Store, task: Task, with_columns: Sequence[str]) -> LabelledImages:
    """Load a store's labelled images, with the task's subgroups and the named columns.

    Raises
    ------
    CorruptStore
        If the store's bytes are not the committed ones.
    """
    embeddings = store.embeddings(dtype=np.float32)
    table = store.table.take(pa.array(embeddings.rows))
    excluded = Counter(f"failed: {failure.reason.value}" for failure in store.failures)
    pending = int((store.status == PENDING).sum())
    if pending:
        excluded["not extracted yet"] = pending
    units = column_text(table, "image_id" if task.unit == "image" else "study_id")
    labels = {unit: row for row, unit in enumerate(task.labels.column(UNIT_ID).to_pylist())}
    label_rows = np.array([labels.get(unit, -1) for unit in units], dtype=np.int64)
    kept = np.flatnonzero(label_rows >= 0)
    if len(kept) < len(units):
        excluded[no_label(task)] = len(units) - len(kept)
    return LabelledImages(
        # Not copied where every image has a label: they are the largest array of a probe.
        X=embeddings.vectors if len(kept) == len(units) else embeddings.vectors[kept],
        image_ids=embeddings.image_ids[kept].astype(np.str_),
        content_sha256=store.content_sha256()[embeddings.rows[kept]],
        units=units[kept],
        label_rows=label_rows[kept],
        cells={"patient": _patients(table, task.unit)[kept], "split": column_text(table, "split")[kept]},
        columns={name: column_text(table, name)[kept] for name in {*task.subgroups, *with_columns}},
        excluded=excluded,
    )


def join_images(pieces: Sequence[LabelledImages]) -> LabelledImages:
    """Return the images of several stores, one store after the other."""
    if len(pieces) == 1:
        return pieces[0]

    def stacked(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(piece, name) for piece in pieces])

    def stacked_cells(name: str) -> dict[str, npt.NDArray[np.str_]]:
        mappings = [getattr(piece, name) for piece in pieces]
        return {key: np.concatenate([mapping[key] for mapping in mappings]) for key in mappings[0]}

    return LabelledImages(
        stacked("X"),
        stacked("image_ids"),
        stacked("content_sha256"),
        stacked("units"),
        stacked("label_rows"),
        stacked_cells("cells"),
        stacked_cells("columns"),
        sum((piece.excluded for piece in pieces), Counter[str]()),
    )


def no_label(task: Task) -> str:
    """Return the reason for which images without a label are left out."""
    return f"no label in task {task.name}"


def require_disjoint(stores: Sequence[Store]) -> None:
    """Refuse stores that plan the same image; also one that failed in one of them, for it would count twice.

    Raises
    ------
    DataError
        With both stores and the first images.
    """
    if len(stores) == 1:
        return
    holder: dict[str, Store] = {}
    for store in stores:
        doubled = [image_id for image_id in store.image_ids if image_id in holder]
        if doubled:
            raise DataError(
                f"{len(doubled):,} images are in store {holder[doubled[0]].path} and in store {store.path}: "
                f"{', '.join(map(repr, doubled[:_SHOWN]))}{', ...' if len(doubled) > _SHOWN else ''}; stores that "
                "are used together must hold different images"
            )
        holder.update(dict.fromkeys(store.image_ids, store))


def require_columns(stores: Sequence[Store], names: Sequence[str]) -> None:
    """Raise UsageError unless every named column is in the manifest of some store."""
    known = list(dict.fromkeys(column for store in stores for column in store.table.column_names))
    for name in names:
        if name not in known:
            listed = ", ".join(str(store.path) for store in stores)
            raise UsageError(
                f"store {listed} has no column {name!r}; its columns: {', '.join(known)}{did_you_mean(name, known)}"
            )


def column_text(table: pa.Table, name: str) -> npt.NDArray[np.str_]:
    """Return a column as text; empty cells, and a column that the table lacks, are ``""``."""
    if name not in table.column_names:
        return np.full(table.num_rows, "", dtype=np.str_)
    cells = table.column(name).cast(pa.string()).to_pylist()
    return np.array(["" if cell is None else cell for cell in cells], dtype=np.str_)


def _patients(table: pa.Table, unit: str) -> npt.NDArray[np.str_]:
    """Return each image's patient; an image without one counts as a patient of its own."""
    patients = column_text(table, "patient_id")
    own = column_text(table, "study_id" if unit == "study" else "image_id")
    return np.where(patients == "", np.char.add(UNKNOWN_PATIENT, own), patients)
