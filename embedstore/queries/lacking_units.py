"""Units of a store that cannot be answered for, wholly or in part, because images have no vector."""

from __future__ import annotations

from dataclasses import dataclass

from embedstore.queries.manifest_columns import own_unit_names
from embedstore.store.reader import FAILED, PENDING, VALID, Store


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
