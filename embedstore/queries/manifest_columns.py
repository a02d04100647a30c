"""Columns of a store's manifest as arrays: text, the unit and patient of each image, the targets it speaks for.

And the units that cannot be answered for, wholly or in part, because images have no vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError, UsageError, did_you_mean
from embedstore.queries.conditions import Condition, none_left, rows_where
from embedstore.queries.derived_columns import can_say, derived_text
from embedstore.store.reader import FAILED, PENDING, VALID, Store
from embedstore.task import ImageRule, unit_id_of, unit_key
from embedstore.view import UNKNOWN_PATIENT


def require_columns(stores: Sequence[Store], names: Sequence[str]) -> None:
    """Raise UsageError unless every named column is in the manifest of some store, or follows from those there."""
    known = list(dict.fromkeys(column for store in stores for column in store.table.column_names))
    for name in names:
        if not any(can_say(name, store.table.column_names) for store in stores):
            listed = ", ".join(str(store.path) for store in stores)
            raise UsageError(
                f"store {listed} has no column {name!r}; its columns: {', '.join(known)}{did_you_mean(name, known)}"
            )


def column_text(table: pa.Table, name: str) -> npt.NDArray[np.str_]:
    """Return a column as text, held or derived (`embedstore.queries.derived_columns`).

    Empty cells, and a column that the table lacks, are ``""``.
    """
    if name not in table.column_names:
        derived = derived_text(table, name)
        return np.full(table.num_rows, "", dtype=np.str_) if derived is None else derived
    cells = table.column(name).cast(pa.string()).to_pylist()
    return np.array(["" if cell is None else cell for cell in cells], dtype=np.str_)


def unit_names(table: pa.Table, unit: str) -> npt.NDArray[np.str_]:
    """Return the id of the unit that each row belongs to (`embedstore.task.unit_id_of`), ``""`` where it has none.

    Raises
    ------
    DataError
        If a value of a key of several columns holds the character that joins them.
    """
    key = unit_key(unit)
    columns = [column_text(table, name) for name in key]
    if len(key) == 1:
        return columns[0]
    cells = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([unit_id_of(key, row) for row in cells], dtype=np.str_)


def own_unit_names(table: pa.Table, unit: str) -> npt.NDArray[np.str_]:
    """Return `unit_names`, where an image that belongs to no unit is one of its own, by its id."""
    names = unit_names(table, unit)
    return np.where(names == "", column_text(table, "image_id"), names)


def patient_names(table: pa.Table, unit: str) -> npt.NDArray[np.str_]:
    """Return each image's patient.

    Where none is known, the images of a study are one patient of their own, and so are those of a unit without a study.
    For a task of images each image is.
    """
    patients = column_text(table, "patient_id")
    if (patients != "").all():
        return patients
    own = own_unit_names(table, unit)
    if unit_key(unit) != ("image_id",):
        studies = column_text(table, "study_id")
        own = np.where(studies == "", own, studies)
    return np.where(patients == "", np.char.add(UNKNOWN_PATIENT, own), patients)


def chosen_rows(
    store: Store,
    table: pa.Table,
    units: npt.NDArray[np.str_],
    *,
    ids: Sequence[str],
    where: Sequence[Condition],
) -> npt.NDArray[np.int64]:
    """Return the rows, ascending, of the units that are named and whose images meet conditions.

    Parameters
    ----------
    store
        Where the rows come from.
    table
        Those with a vector.
    units
        (n_rows,) str: the unit of each.
    ids
        Ids of units, or of images of theirs; all where empty.
    where
        The conditions.

    Raises
    ------
    DataError
        If an id is of no unit and of no image with a vector, or no row is left.
    """
    images = column_text(table, "image_id")
    named = np.zeros(len(units), np.bool_) if ids else np.ones(len(units), np.bool_)
    for name in ids:
        own = units == name
        if not own.any() and name in store.row_of:
            store.row_of_vector(name)  # which says why where it has none
            own = units == units[np.flatnonzero(images == name)[0]]
        if not own.any():
            known = dict.fromkeys([*units.tolist(), *images.tolist()])
            raise DataError(
                f"store {store.path} has no unit or image {name!r} with a vector{did_you_mean(name, known)}"
            )
        named |= own
    kept = named & rows_where(table, where, holder=f"store {store.path}")
    if not kept.any():
        raise DataError(none_left(table.filter(pa.array(named)), where))
    return np.flatnonzero(kept)


def image_mask(table: pa.Table, rules: Sequence[ImageRule | None]) -> npt.NDArray[np.bool_] | None:
    """Return (n_rows, targets) bool: which images speak for which target; None where no target has a rule.

    Parameters
    ----------
    table
        Rows of a manifest.
    rules
        One per target; None where every image speaks for it.
    """
    if not any(rules):
        return None
    columns = {rule.column: column_text(table, rule.column) for rule in rules if rule is not None}
    everyone = np.ones(table.num_rows, np.bool_)
    return np.stack(
        [everyone if rule is None else np.isin(columns[rule.column], rule.values) for rule in rules], axis=1
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
    names, held = own_unit_names(store.table, unit), store.status == VALID
    without, having = set(names[~held].tolist()), set(names[held].tolist())
    return Lacking(
        pending=int((store.status == PENDING).sum()),
        failed=int((store.status == FAILED).sum()),
        absent=len(without - having),
        partial=len(without & having),
    )
