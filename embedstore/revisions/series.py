"""Slices of an MR series are shown over one range of values, so that a change to one of them concerns all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.store.part_reader import PENDING
from embedstore.store.reader import Store

_MODALITY = "MR"
_WHY = "another slice of the series changed, and with it the range of values that all are shown over"


def with_whole_series(
    store: Store, stale: Mapping[int, Mapping[int, str]], revised: Mapping[int, pa.Table] | None = None
) -> dict[int, dict[int, str]]:
    """Return the rows to compute again, and with each slice of an MR series the others of it.

    Parameters
    ----------
    store
        The store as it is.
    stale
        Number of the part -> row of the part -> why it is to be computed again.
    revised
        Number of the part -> its manifest as it will be: a slice that goes to another series concerns both.
    """
    revised = revised or {}
    tables = [
        (
            part,
            [part.manifest.table, *(revised[number] for number in [part.plan.number] if number in revised)],
        )
        for part in store.parts
    ]
    concerned: set[str] = set()
    for part, held in tables:
        rows = pa.array(list(stale.get(part.plan.number, {})), pa.int64())
        for table in held:
            concerned.update(filter(None, _series(table.take(rows)).to_pylist()))
    found = {number: dict(reasons) for number, reasons in stale.items() if reasons}
    for part, held in tables if concerned else []:
        names = pa.array(sorted(concerned))
        member = np.zeros(part.plan.rows, bool)
        for table in held:
            member |= np.asarray(pc.is_in(_series(table), value_set=names))
        reasons = found.get(part.plan.number, {})
        for row in np.flatnonzero(member & (part.status() != PENDING)):
            reasons.setdefault(int(row), _WHY)
        if reasons:
            found[part.plan.number] = reasons
    return found


def is_slice(table: pa.Table) -> pa.ChunkedArray:
    """Return which rows of a manifest are shown over the range of their series."""
    return pc.fill_null(pc.equal(table.column("modality"), _MODALITY), False)


def _series(table: pa.Table) -> pa.ChunkedArray:
    """Return the series of slices that are shown over its range, null for other images."""
    return pc.if_else(is_slice(table), table.column("series_id"), pa.scalar(None, pa.string()))
