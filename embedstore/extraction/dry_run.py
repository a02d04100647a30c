"""What an extraction would do: counts, refusals, time and disk, without writing a byte."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from embedstore.datasets.base import Collection
from embedstore.decoding.decode import DecodeJob
from embedstore.decoding.pool import DecoderPool
from embedstore.encoders.base import Encoder, OfCrops
from embedstore.errors import ImageRefused, Reason
from embedstore.extraction.options import Choose, ExtractOptions
from embedstore.extraction.same_key import require_same_key
from embedstore.keys.quiet_messages import without_values
from embedstore.manifest import Manifest, Record, path_from_manifest
from embedstore.pipeline.chunk_work import box_of
from embedstore.pipeline.run_chunks import stack_pixels
from embedstore.revisions.compare import changes_of, lines_of
from embedstore.revisions.series import with_whole_series
from embedstore.revisions.sources import changed_files
from embedstore.store.layout import CONTENT_PLAN, StoreLayout, planned_arrays
from embedstore.store.reader import FAILED, VALID, open_store

SAMPLE = 64
_GROUPS = ("modality", "plane", "split")


@dataclass(frozen=True)
class DryRun:
    """What an extraction would meet.

    Parameters
    ----------
    images
        Records that would be tried.
    known
        Records that the store has a vector of, or a reason why it has none.
    groups
        (modality, plane, split) -> number of images; ``""`` where unknown.
    absent
        Reason -> image ids that no decoding is needed to refuse: missing and empty files, of all records.
    sampled
        Records that were decoded to learn the rest, spread evenly.
    refused
        ``image_id`` -> refusal, among the sampled ones.
    decode_per_s, encode_per_s
        Images per second of the decoding processes together and of the encoder, on this machine; NaN where
        nothing could be measured.
    disk_bytes
        Size of the new part.
    revised
        Lines for people: what the data set says otherwise than the store of rows that it holds.
    again
        Rows of the store that would be computed again, as their file or what is said of their pixels changed.
    array_bytes
        Array -> its size in the new part: the vectors, and further arrays.
    """

    images: int
    known: int
    groups: Mapping[tuple[str, str, str], int]
    absent: Mapping[Reason, tuple[str, ...]]
    sampled: int
    refused: Mapping[str, ImageRefused]
    decode_per_s: float
    encode_per_s: float
    disk_bytes: int
    revised: tuple[str, ...] = ()
    again: int = 0
    array_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def computable(self) -> int:
        """Records that would get a vector, as far as the sample tells: all but those known to be refused."""
        return self.images - sum(map(len, self.absent.values())) - len(self.refused)

    @property
    def is_complete(self) -> bool:
        """Whether every record that is there was decoded, so that an extraction will refuse no other."""
        return self.sampled == self.images - sum(map(len, self.absent.values()))

    @property
    def seconds(self) -> float:
        """Estimated time: the slower of decoding and encoding, which run side by side."""
        return self.images / min(self.decode_per_s, self.encode_per_s)


def dry_run(
    collection: Collection,
    store: str | os.PathLike[str],
    encoder: Encoder,
    *,
    choose: Choose = Choose.NEW,
    options: ExtractOptions | None = None,
) -> DryRun:
    """Look at every file's size and at a sample's pixels.

    Parameters
    ----------
    collection, store, encoder, choose, options
        As `embedstore.extraction.extract.extract`.

    Raises
    ------
    IdentityMismatch
        If the store holds embeddings of another identity.
    """
    options = options or ExtractOptions()
    if collection.crop is not None:
        encoder = OfCrops(encoder, collection.crop)
    wanted = collection.manifest.first(options.limit)
    new = wanted
    revised: tuple[str, ...] = ()
    again = 0
    path = Path(store)
    if StoreLayout(path).store_file.exists():
        held = open_store(path)
        held.identity.require_same(encoder.identity, holder=f"store {path}")
        require_same_key(held, collection)
        changes = changes_of(held, wanted, collection.root)
        changed = changed_files(held, wanted, collection.root, kept=collection.kept_state)
        files = with_whole_series(held, changed.other)
        stale = {(entry.part.plan.number, row) for entry in changes for row in entry.stale}
        again = len(stale | {(number, row) for number, rows in files.items() for row in rows})
        revised = tuple(lines_of(changes))
        if held.parts:
            settled = (VALID,) if choose is Choose.NEW_OR_FAILED else (VALID, FAILED)
            image_ids = held.table.column("image_id").combine_chunks()
            new = wanted.without(image_ids.filter(pa.array(np.isin(held.status, settled))))
    records = list(new.records())
    absent = _absent(records, collection.root)
    gone = {image_id for image_ids in absent.values() for image_id in image_ids}
    present = [record for record in records if record.image_id not in gone]
    sample = (
        [present[row] for row in np.unique(np.linspace(0, len(present) - 1, SAMPLE).astype(int))]
        if present
        else []
    )
    refused, decode_per_s, encode_per_s = _measure(sample, collection.root, encoder, options)
    if collection.hides_paths:
        refused = {
            image_id: ImageRefused(refusal.reason, without_values(refusal.message))
            for image_id, refusal in refused.items()
        }
    arrays = planned_arrays(encoder.identity, options.store_dtype)
    array_bytes = {name: len(new) * array.row_bytes for name, array in arrays.items()}
    return DryRun(
        images=len(new),
        known=len(wanted) - len(new),
        groups=_grouped(new),
        absent=absent,
        sampled=len(sample),
        refused=refused,
        decode_per_s=decode_per_s,
        encode_per_s=encode_per_s,
        disk_bytes=sum(array_bytes.values()) + len(new) * CONTENT_PLAN.row_bytes + len(new.to_parquet()),
        revised=revised,
        again=again,
        array_bytes=array_bytes,
    )


def _grouped(manifest: Manifest) -> dict[tuple[str, str, str], int]:
    names = manifest.table.column_names
    columns = [
        [cell or "" for cell in manifest.column(name)] if name in names else [""] * len(manifest)
        for name in _GROUPS
    ]
    counts = Counter(zip(*columns, strict=True))
    return {key: counts[key] for key in sorted(counts)}


def _absent(records: Sequence[Record], root: Path) -> dict[Reason, tuple[str, ...]]:
    found: dict[Reason, list[str]] = {}
    for record in records:
        try:
            size = os.stat(path_from_manifest(root, record.path)).st_size
        except FileNotFoundError:
            found.setdefault(Reason.MISSING, []).append(record.image_id)
        except OSError:
            found.setdefault(Reason.UNREADABLE, []).append(record.image_id)
        else:
            if not size:
                found.setdefault(Reason.NO_PIXELS, []).append(record.image_id)
    return {reason: tuple(image_ids) for reason, image_ids in found.items()}


def _measure(
    sample: list[Record], root: Path, encoder: Encoder, options: ExtractOptions
) -> tuple[dict[str, ImageRefused], float, float]:
    """Decode and encode the sample; return refusals and both speeds."""
    if not sample:
        return {}, float("nan"), float("nan")
    jobs = [
        DecodeJob(str(path_from_manifest(root, entry.path)), entry.frame, entry.modality, crop=box_of(entry))
        for entry in sample
    ]
    refused, pictures = {}, []
    with DecoderPool(encoder.preprocess, workers=options.workers, limits=options.limits) as decoder:
        next(decoder.decode(jobs[:1], ahead=0))  # processes start and import outside the measurement
        started = time.perf_counter()
        for record, outcome in zip(sample, decoder.decode(jobs, ahead=len(jobs)), strict=True):
            if isinstance(outcome, ImageRefused):
                refused[record.image_id] = outcome
            else:
                pictures.append(outcome.pixels)
        decode_per_s = len(sample) / (time.perf_counter() - started)
    if not pictures:
        return refused, decode_per_s, float("nan")
    encoder.load()
    batch = stack_pixels(pictures[: options.batch_size])
    encoder.encode(batch[:1])
    started = time.perf_counter()
    encoder.encode(batch)
    return refused, decode_per_s, len(batch) / (time.perf_counter() - started)
