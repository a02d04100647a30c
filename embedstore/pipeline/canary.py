"""A few stored images embedded once more: whether this machine still makes the vectors that a store holds.

An identity says encoder, weights and preprocess; it cannot say which driver, library or processor computes. One that
changes vectors beyond rounding would mix two kinds of them in one store, and no digest would notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.decoding.decode import Decoder
from embedstore.encoders.base import Encoder
from embedstore.errors import StoreError
from embedstore.files import FileState, state_of
from embedstore.manifest import Manifest, Record, path_from_manifest
from embedstore.pipeline.chunk_work import ChunkWork, Stopwatch
from embedstore.pipeline.run_chunks import run_chunks
from embedstore.pipeline.series_ranges import SeriesRanges, series_members, with_series_ranges
from embedstore.store.commit import round_rows
from embedstore.store.layout import VECTORS
from embedstore.store.reader import VALID, Store

IMAGES = 5
# Share of a vector's length. Another order of summation moves float32 by 1e-6 to 1e-5 in towers of some dozen layers;
# half precision keeps 11 bits, bfloat16 8, and their errors add up over the layers.
TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
# A number that float32 puts next to the border of two float16 may land on either.
_STORED_AS_FLOAT16 = 1e-3


@dataclass(frozen=True)
class Canary:
    """What came of the images that were embedded again.

    Parameters
    ----------
    differences
        Image id -> length of the difference to the stored vector, as a share of that vector's length.
    refused
        Image id -> why there is no vector now.
    tolerance
        Up to where a difference is rounding.
    versions
        Library -> version noted in the receipts and version now, where they differ.
    """

    differences: Mapping[str, float]
    refused: Mapping[str, str]
    tolerance: float
    versions: Mapping[str, tuple[str, str]]

    @property
    def largest(self) -> float:
        """The largest difference; 0 where no image was embedded again."""
        return max(self.differences.values(), default=0.0)

    @property
    def line(self) -> str:
        """What is to be said of it; empty where all vectors came out the same to the bit."""
        if not self.largest and not self.refused:
            return ""
        count = len(self.differences)
        said = f"{count} stored images were embedded again: they differ by {self.largest:.1g} of their length"
        said += f" (up to {self.tolerance:.0e} is rounding)"
        if self.refused:
            image_id, why = next(iter(self.refused.items()))
            said = f"a stored image has no vector any more: {image_id}: {why}"
        return said + "".join(
            f"; {name} was {before}, is {now}" for name, (before, now) in sorted(self.versions.items())
        )

    def require(self, holder: str) -> None:
        """Raise StoreError unless every vector came out the same up to rounding."""
        if self.refused or self.largest > self.tolerance:
            raise StoreError(
                f"this machine no longer makes the vectors that {holder} holds: {self.line}. Nothing was computed: use "
                "the versions of before, or begin a new store"
            )


def embed_again(
    store: Store,
    wanted: Manifest,
    root: Path,
    encoder: Encoder,
    decoder: Decoder,
    *,
    versions: Mapping[str, str],
    images: Manifest | None = None,
) -> Canary:
    """Embed up to five stored images again, spread over the store, whose files are as they were.

    Parameters
    ----------
    store
        The store; one without a finished image gives an empty answer.
    wanted, root
        The data set's records, and the folder of their paths.
    encoder, decoder
        Loaded and open.
    versions
        Library -> version now.
    images
        The whole images where the records are crops.
    """
    chosen = list(_chosen(store, wanted, root))
    records = tuple(record for _, record in chosen)
    tolerance = TOLERANCES.get(store.identity.compute_dtype, max(TOLERANCES.values()))
    if not chosen:
        return Canary({}, {}, tolerance, {})
    dtypes = [_dtype_of(store, row) for row, _ in chosen]
    if np.float16 in dtypes:
        tolerance += _STORED_AS_FLOAT16
    # The members of the whole series, so that a slice is shown over the range that its row was made with.
    members = series_members((wanted if images is None else images).records())
    known = dict(store.series_ranges())
    ranges = SeriesRanges(root, members, encoder.preprocess.mri_range, decoder, known)
    work = ChunkWork(0, 0, tuple(range(len(records))), records)
    ((_, result),) = run_chunks(
        with_series_ranges([work], ranges),
        root=root,
        encoder=encoder,
        decoder=decoder,
        batch_size=len(records),
        stopwatch=Stopwatch(),
        stopping=lambda: False,
        further=False,
    )
    _, failures = round_rows(result, {VECTORS: "float32"}, start=0)
    refused = {records[failure.row].image_id: f"{failure.reason}: {failure.message}" for failure in failures}
    kept = [at for at, record in enumerate(records) if record.image_id not in refused]
    stored = store.select([records[at].image_id for at in kept], dtype=np.float32).vectors.astype(np.float64)
    # As each row's part would store it; parts may differ.
    with np.errstate(over="ignore"):  # infinity is far from what is stored, and stops
        rounded = [result.vectors[at].astype(dtypes[at]).astype(np.float64) for at in kept]
    now = np.array(rounded).reshape(stored.shape)
    lengths = np.maximum(np.linalg.norm(stored, axis=1), np.finfo(np.float32).tiny)
    shares = np.linalg.norm(now - stored, axis=1) / lengths
    differences = {records[at].image_id: float(share) for at, share in zip(kept, shares, strict=True)}
    return Canary(
        differences, refused, tolerance, _changed_versions(store, [row for row, _ in chosen], versions)
    )


def _chosen(store: Store, wanted: Manifest, root: Path) -> Iterator[tuple[int, Record]]:
    """Yield row and record of images whose file is there as it was read, from all over the store."""
    valid = np.flatnonzero(store.status == VALID)
    if not len(valid):
        return
    place = {image_id: at for at, image_id in enumerate(wanted.column("image_id"))}
    # Four times as many are looked at, as files may be gone.
    spread = np.unique(np.linspace(0, len(valid) - 1, 4 * IMAGES).astype(int))
    # Every fourth first, so that the whole store is seen however few are needed.
    order = [row for first in range(4) for row in valid[spread[first::4]]]
    found = 0
    for row in order:
        at = place.get(store.image_ids[row])
        if at is None:
            continue
        (record,) = wanted.records(at, at + 1)
        now = state_of(str(path_from_manifest(root, record.path)))
        before = _source(store, int(row))
        # Of hidden files no time is kept; one that changed was withdrawn before.
        as_read = before is None or (now is not None and before.is_same_time(now)) or bool(wanted.paths)
        if now is not None and as_read:
            yield int(row), record
            found += 1
            if found == IMAGES:
                return


def _dtype_of(store: Store, row: int) -> np.dtype[Any]:
    part = next(part for offset, part in reversed(store.offsets()) if offset <= row)
    return part.plan.vectors.numpy_dtype.newbyteorder("=")


def _source(store: Store, row: int) -> FileState | None:
    for offset, part in store.offsets():
        if offset <= row < offset + part.plan.rows:
            receipt = part.receipts[(row - offset) // part.plan.chunk_rows]
            return receipt.files[row - offset - receipt.start]
    return None


def _changed_versions(store: Store, rows: list[int], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    noted: dict[str, str] = {}
    for offset, part in store.offsets():
        for row in rows:
            if offset <= row < offset + part.plan.rows:
                noted |= part.receipts[(row - offset) // part.plan.chunk_rows].versions
    return {
        name: (noted[name], version) for name, version in now.items() if noted.get(name, version) != version
    }
