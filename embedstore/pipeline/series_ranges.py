"""Value ranges of MR series, computed one chunk ahead of the decoding that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedstore.decoding.decode import DecodeJob, Decoder
from embedstore.errors import ImageRefused
from embedstore.images.series_range import ValueCounts, merge_counts, series_range
from embedstore.manifest import Record, path_from_manifest
from embedstore.pipeline.chunk_work import ChunkWork
from embedstore.store.receipt import KIND_MARK, series_of

_MODALITY = "MR"
_AHEAD = 32


@dataclass
class SeriesRanges:
    """Looks up or computes the range of each series; `known` grows as it does.

    Parameters
    ----------
    root
        Folder that record paths are relative to.
    members
        Series id -> the records of the whole series, extracted or not: a slice encodes the same alone or
        among its series because the range is always that of all of them.
    mri_range
        Which values of a series become 0 and 255 (`PreprocessSpec.mri_range`).
    decoder
        Source of value counts.
    known
        Ranges that the store holds already, by `range_name`; a series of which there is one is not counted
        again.
    """

    root: Path
    members: Mapping[str, Sequence[Record]]
    mri_range: str
    decoder: Decoder
    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, work: ChunkWork) -> ChunkWork:
        """Return the work with the ranges of its series; a series without a readable slice has none."""
        series = {record.series_id for record in work.records if record.series_id in self.members}
        for name in sorted(series - {series_of(known) for known in self.known}):
            for kind, found in self._compute(self.members[name]).items():
                self.known[range_name(name, kind)] = found
        return replace(
            work,
            series_ranges={
                name: self.known[name] for name in sorted(self.known) if series_of(name) in series
            },
        )

    def _compute(self, records: Sequence[Record]) -> dict[str, tuple[float, float]]:
        """Return the range of each kind of value; none for a series without a readable slice."""
        jobs = (
            DecodeJob(str(path_from_manifest(self.root, record.path)), record.frame, record.modality)
            for record in records
        )
        # A slice that cannot be read has no say in the range; it fails under its own name when it is decoded.
        counts: dict[str, list[ValueCounts]] = {}
        for found in self.decoder.count_values(jobs, ahead=_AHEAD):
            if not isinstance(found, ImageRefused):
                counts.setdefault(found.kind, []).append(found)
        return {
            kind: series_range(merge_counts(pieces), self.mri_range)
            for kind, pieces in sorted(counts.items())
        }


def range_name(series_id: str, kind: str) -> str:
    """Return the name of a range in receipts: the series, and the kind of its values unless it is magnitude."""
    return f"{series_id}{KIND_MARK}{kind}" if kind else series_id


def ranges_of_series(
    series_ranges: Mapping[str, tuple[float, float]],
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the ranges of each series by kind, ``""`` for plain magnitude."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, limits in series_ranges.items():
        series_id, _, kind = name.partition(KIND_MARK)
        found.setdefault(series_id, {})[kind] = limits
    return found


def series_members(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the records of each MR series among `records`."""
    members: dict[str, list[Record]] = {}
    for record in records:
        if record.modality == _MODALITY and record.series_id:
            members.setdefault(record.series_id, []).append(record)
    return members


def with_series_ranges(works: Iterable[ChunkWork], ranges: SeriesRanges) -> Iterator[ChunkWork]:
    """Yield the works with their ranges, which a thread computes one chunk ahead of the consumer."""
    if not ranges.members:
        yield from works
        return
    with ThreadPoolExecutor(1, thread_name_prefix="series") as pool:
        waiting: deque[Future[ChunkWork]] = deque()
        for work in works:
            waiting.append(pool.submit(ranges.of, work))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
