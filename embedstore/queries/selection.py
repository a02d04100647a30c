"""Leave out records by columns of the manifest, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.datasets.folder_summary import count_records
from embedstore.errors import DataError
from embedstore.manifest import Manifest
from embedstore.queries.conditions import Condition, none_left, rows_where


def select_records(collection: Collection, conditions: Sequence[Condition]) -> Collection:
    """Return the collection with the records that fulfil every condition; the summary says how many did not.

    Raises
    ------
    UsageError
        If the manifest has no such column, or one of words cannot be compared as asked.
    DataError
        If no record is left.
    """
    if not conditions:
        return collection
    manifest, left_out = collection.manifest, {}
    for condition in conditions:
        held = rows_where(manifest.table, [condition], holder="the data set")
        kept = Manifest(manifest.table.filter(pa.array(held)))
        if not len(kept):
            raise DataError(none_left(manifest.table, [condition]))
        left_out[f"left out by {condition}"] = len(manifest) - len(kept)
        manifest = kept
    counted = count_records(collection.manifest)
    rest = {name: fact for name, fact in collection.summary.items() if name not in counted}
    whole = {"images of the data set": len(collection.manifest)}
    return replace(collection, manifest=manifest, summary=count_records(manifest) | left_out | whole | rest)
