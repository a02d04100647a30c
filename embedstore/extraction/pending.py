"""Chunks that need work, and how a retried chunk is completed from the store's own bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from embedstore.datasets.base import Collection
from embedstore.errors import Reason
from embedstore.extraction.options import Choose
from embedstore.extraction.shard import WHOLE, Shard
from embedstore.files import FileState
from embedstore.manifest import Manifest
from embedstore.pipeline.chunk_work import ChunkWork
from embedstore.store.commit import ChunkResult
from embedstore.store.layout import VECTORS, PartPlan
from embedstore.store.reader import Part, Store
from embedstore.store.receipt import Receipt


@dataclass(frozen=True)
class PendingChunk:
    """A chunk to compute.

    Parameters
    ----------
    plan
        The part's plan.
    work
        What the engine gets.
    part
        Set when failed rows are retried: the chunk's other rows come from here.
    """

    plan: PartPlan
    work: ChunkWork
    part: Part | None = None

    def located(self, collection: Collection) -> Self:
        """Return the chunk with the paths of its images, which a store may not hold (`Manifest.paths`)."""
        if not collection.hides_paths:
            return self
        records = tuple(collection.located(self.work.records))
        return replace(self, work=replace(self.work, records=records))


def pending_chunks(
    store: Store,
    manifest: Manifest,
    say: Callable[[str], None],
    *,
    choose: Choose,
    shard: Shard = WHOLE,
) -> list[PendingChunk]:
    """Return the chunks of a shard that are to be computed for a data set, in order."""
    reasons = frozenset(Reason) if choose is Choose.NEW_OR_FAILED else frozenset({Reason.CHANGED})
    return [
        *unfinished(store, manifest, say, shard=shard),
        *failed(store, manifest, reasons=reasons, shard=shard),
    ]


def unfinished(
    store: Store, manifest: Manifest, say: Callable[[str], None], *, shard: Shard = WHOLE
) -> list[PendingChunk]:
    """Return the chunks without a receipt whose images `manifest` holds; say how many others there are."""
    ours = set(manifest.column("image_id"))
    chosen, foreign = [], 0
    for part in store.parts:
        for chunk in filter(shard.holds, part.pending):
            start, stop = part.plan.bounds(chunk)
            records = tuple(part.manifest.records(start, stop))
            if all(record.image_id in ours for record in records):
                work = ChunkWork(part.plan.number, chunk, tuple(range(start, stop)), records)
                chosen.append(PendingChunk(part.plan, work))
            else:
                foreign += 1
    if foreign:
        say(
            f"{foreign} unfinished chunk(s) of the store hold images that this data set does not; "
            "run the command that planned them to finish them"
        )
    return chosen


def failed(
    store: Store, manifest: Manifest, *, reasons: AbstractSet[Reason], shard: Shard = WHOLE
) -> list[PendingChunk]:
    """Return the rows of finished chunks that failed for one of some reasons."""
    ours = set(manifest.column("image_id"))
    chosen = []
    for part in store.parts:
        for chunk, receipt in sorted(part.receipts.items()):
            rows = [failure.row for failure in receipt.failures if failure.reason in reasons]
            if not rows or not shard.holds(chunk):
                continue
            records = [record for row in rows for record in part.manifest.records(row, row + 1)]
            kept = [
                (row, record) for row, record in zip(rows, records, strict=True) if record.image_id in ours
            ]
            if kept:
                rows_kept, records_kept = zip(*kept, strict=True)
                work = ChunkWork(part.plan.number, chunk, rows_kept, records_kept)
                # Only its own receipt, for the entry may travel to another machine.
                chosen.append(PendingChunk(part.plan, work, replace(part, receipts={chunk: receipt})))
    return chosen


def whole_chunk(pending: PendingChunk, result: ChunkResult) -> ChunkResult:
    """Return what the writer commits; of a retried chunk, the rows that were not retried stay as they are."""
    if pending.part is None:
        return result
    part, rows, chunk = pending.part, pending.work.rows, pending.work.chunk
    receipt = part.receipts[chunk]
    positions = [row - receipt.start for row in rows]
    arrays = {}
    for name, computed in result.arrays.items():
        arrays[name] = part.read_chunk(chunk, array=name).astype(np.float32)
        arrays[name][positions] = computed
    content = part.read_content(chunk)
    content[positions] = result.content
    untouched = {
        failure.row: (failure.reason, failure.message)
        for failure in receipt.failures
        if failure.row not in rows
    }
    return replace(
        result,
        vectors=arrays.pop(VECTORS),
        further=arrays,
        content=content,
        failures={**untouched, **result.failures},
        series_ranges={**receipt.series_ranges, **result.series_ranges},
        notes=_merged(receipt.notes, result.notes, again=frozenset(rows)),
        sources=_merged_sources(receipt, result, positions),
        rounding_errors={name: digest.rounding_error for name, digest in receipt.arrays.items()},
    )


def _merged_sources(
    receipt: Receipt, result: ChunkResult, positions: Sequence[int]
) -> tuple[FileState | None, ...]:
    merged = receipt.files
    for position, source in zip(positions, result.sources, strict=True):
        merged[position] = source
    return tuple(merged)


def _merged(
    before: Mapping[str, tuple[int, ...]], now: Mapping[str, tuple[int, ...]], *, again: frozenset[int]
) -> dict[str, tuple[int, ...]]:
    """Return notes of a chunk's rows: those from before of rows that were not tried again, and the new ones."""
    merged = {}
    for code in before.keys() | now.keys():
        kept = [row for row in before.get(code, ()) if row not in again]
        merged[code] = tuple(sorted({*kept, *now.get(code, ())}))
    return {code: rows for code, rows in merged.items() if rows}
