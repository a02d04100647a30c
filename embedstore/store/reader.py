"""Reads a store: a row exists if and only if a receipt says so.

Chunks are read straight into the result, past Zarr: Zarr fills missing chunks silently and is slower.
Every load checks each chunk's bytes against the CRC-32C in its receipt, so a flipped, truncated, zeroed,
swapped or missing chunk raises instead of answering.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.brief import Brief
from embedstore.errors import Advice, CorruptStore, DataError, UsageError
from embedstore.files import StrPath, sha256_bytes, table_of_parquet
from embedstore.identity import Identity
from embedstore.manifest import Manifest
from embedstore.store.layout import (
    CONTENT,
    CONTENT_BYTES,
    CRC_BYTES,
    STORE_DTYPES,
    VECTORS,
    Failure,
    PartLayout,
    PartPlan,
    Receipt,
    StoreLayout,
    crc32c,
    read_part_plan,
    read_receipt,
    read_store_document,
)

PENDING, VALID, FAILED = 0, 1, 2
_READ_THREADS = min(8, os.cpu_count() or 1)
from embedstore.store.tasks import task_names


@dataclass(frozen=True)
class Part:
    """One part: its plan and the receipts of its finished chunks, by chunk number."""

    layout: PartLayout
    plan: PartPlan
    receipts: dict[int, Receipt]

    @cached_property
    def manifest(self) -> Manifest:
        """The planned records; raises CorruptStore if the file is not the one that was planned."""
        return Manifest(table_of_parquet(self._read_manifest()).combine_chunks())

    def image_id_table(self) -> pa.Table:
        """Return the column ``image_id`` of `manifest`, checked as that is; no other column is decoded."""
        return table_of_parquet(self._read_manifest(), columns=["image_id"])

    @property
    def pending(self) -> list[int]:
        """Chunks without a receipt."""
        return [chunk for chunk in range(self.plan.chunks) if chunk not in self.receipts]

    @property
    def failures(self) -> list[Failure]:
        """Failed rows of the finished chunks, in row order."""
        return [failure for chunk in sorted(self.receipts) for failure in self.receipts[chunk].failures]

    def status(self) -> npt.NDArray[np.uint8]:
        """Return (rows,) uint8: `PENDING`, `VALID` or `FAILED`."""
        status = np.full(self.plan.rows, PENDING, dtype=np.uint8)
        for receipt in self.receipts.values():
            status[receipt.start : receipt.stop] = VALID
        status[[failure.row for failure in self.failures]] = FAILED
        return status

    def read_chunk(self, chunk: int, *, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return the checked vectors of a finished chunk; failed rows are NaN.

        Parameters
        ----------
        chunk
            A chunk with a receipt.
        out
            Optional (rows of the chunk, dim) target of the store's dtype.
        """
        receipt, plan = self.receipts[chunk], self.plan
        rows = receipt.stop - receipt.start
        if out is None:
            out = np.empty((rows, plan.dim), dtype=STORE_DTYPES[plan.dtype])
        _read_chunk(self.layout.chunk_name(VECTORS, chunk), out)
        failed = [failure.row - receipt.start for failure in receipt.failures]
        covered = np.delete(out, failed, axis=0) if failed else out
        if crc32c(covered) != receipt.vectors_crc32c:
            raise CorruptStore(
                f"{self.layout.chunk(VECTORS, chunk)}: rows {receipt.start} to {receipt.stop - 1} are not the "
                "vectors that were committed",
                advice=Advice.REPAIR,
            )
        # An interrupted retry may have left a value below a failure that still stands.
        if failed:
            out[failed] = np.nan
        return out

    def read_content(self, chunk: int) -> npt.NDArray[np.uint8]:
        """Return (rows of the chunk, 32) uint8: digests of decoded pixels, zero for failed rows."""
        receipt = self.receipts[chunk]
        content = np.empty((receipt.stop - receipt.start, CONTENT_BYTES), dtype=np.uint8)
        _read_chunk(self.layout.chunk_name(CONTENT, chunk), content)
        failed = [failure.row - receipt.start for failure in receipt.failures]
        if sha256_bytes(np.delete(content, failed, axis=0).tobytes()) != receipt.content_sha256:
            raise CorruptStore(
                f"{self.layout.chunk(CONTENT, chunk)}: rows {receipt.start} to {receipt.stop - 1} are not the "
                "digests that were committed",
                advice=Advice.REPAIR,
            )
        content[failed] = 0
        return content

    def _read_manifest(self) -> bytes:
        try:
            payload = self.layout.manifest.read_bytes()
        except FileNotFoundError as error:
            raise CorruptStore(f"{self.layout.manifest} is missing", advice=Advice.REPAIR) from error
        if sha256_bytes(payload) != self.plan.manifest_sha256:
            raise CorruptStore(
                f"{self.layout.manifest} was changed after the part was planned", advice=Advice.REPAIR
            )
        return payload


@dataclass(frozen=True, repr=False)
class Embeddings(Brief):
    """Vectors with their names.

    Parameters
    ----------
    image_ids
        (n,) object array of str, in store order or in the order asked for.
    vectors
        (n, dim) float16 or float32, un-normalised; every row finite.
    rows
        (n,) int64: row in the store, counted over all parts.
    """

    image_ids: npt.NDArray[np.object_]
    vectors: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def _facts(self) -> dict[str, Any]:
        return {
            "images": len(self.image_ids),
            "dim": self.vectors.shape[1],
            "dtype": str(self.vectors.dtype),
        }


@dataclass(frozen=True, repr=False)
class Store(Brief):
    """A store opened for reading, as it was at that moment; `open_store` makes one."""

    path: Path
    identity: Identity
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Planned rows over all parts."""
        return sum(part.plan.rows for part in self.parts)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest store dtype of the parts, in native byte order; float16 for an empty store."""
        kinds = [STORE_DTYPES[part.plan.dtype].newbyteorder("=") for part in self.parts]
        return np.result_type(np.float16, *kinds)

    @cached_property
    def table(self) -> pa.Table:
        """The manifests of all parts, one row per planned row; cells that a part lacks are null."""
        return pa.concat_tables([part.manifest.table for part in self.parts], promote_options="permissive")

    @cached_property
    def image_ids(self) -> npt.NDArray[np.object_]:
        """(rows,) object array of str."""
        if not self.parts:
            return np.array([], dtype=object)
        table = pa.concat_tables([part.image_id_table() for part in self.parts])
        return np.asarray(table.column("image_id").to_numpy(zero_copy_only=False), dtype=object)

    @cached_property
    def status(self) -> npt.NDArray[np.uint8]:
        """(rows,) uint8: `PENDING`, `VALID` or `FAILED`."""
        return np.concatenate([np.zeros(0, np.uint8), *(part.status() for part in self.parts)])

    @cached_property
    def row_of(self) -> dict[str, int]:
        """``{image_id: row}`` over all planned rows."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    @property
    def failures(self) -> list[Failure]:
        """All failed rows, with rows counted over all parts."""
        return [
            Failure(offset + failure.row, failure.reason, failure.message)
            for offset, part in self._offsets()
            for failure in part.failures
        ]

    def embeddings(self, *, dtype: npt.DTypeLike | None = None) -> Embeddings:
        """Return every vector there is, in row order; failed and pending rows are left out.

        Parameters
        ----------
        dtype
            ``float16`` or ``float32``; by default as stored.

        Raises
        ------
        CorruptStore
            If any chunk's bytes are not the committed ones.
        """
        wanted = np.dtype(dtype) if dtype is not None else self.dtype
        if wanted not in (np.dtype(np.float16), np.dtype(np.float32)):
            raise UsageError(f"dtype must be float16 or float32; found {wanted}")
        valid = self.status == VALID
        vectors = np.empty((int((self.status != PENDING).sum()), self.identity.dim), dtype=wanted)
        jobs = self._placed_chunks()
        # Each thread fills one run of the result: neighbours would touch the same huge page for the first time
        # at once, and the kernel would clear it for both.
        runs = np.array_split(np.arange(len(jobs)), _READ_THREADS)
        rows = np.flatnonzero(valid)
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            filled = pool.map(lambda run: _fill(vectors, [jobs[at] for at in run]), runs)
            # The names are decoded here while the threads wait for the kernel.
            image_ids = self.image_ids[rows]
            for _ in filled:
                pass
        done_valid = valid[self.status != PENDING]
        if not done_valid.all():
            vectors = vectors[done_valid]
        return Embeddings(image_ids, vectors, rows)

    def select(self, image_ids: Sequence[str], *, dtype: npt.DTypeLike | None = None) -> Embeddings:
        """Return the vectors of `image_ids`, in that order.

        Raises
        ------
        DataError
            If an id is unknown, not extracted yet, or failed; the message names the first one and says which.
        """
        rows = np.array([self._require_valid(image_id) for image_id in image_ids], dtype=np.int64)
        wanted = np.dtype(dtype) if dtype is not None else self.dtype
        vectors = np.empty((len(rows), self.identity.dim), dtype=wanted)
        for offset, part in self._offsets():
            local = rows - offset
            inside = np.flatnonzero((local >= 0) & (local < part.plan.rows))
            chunks = local[inside] // part.plan.chunk_rows
            for chunk in np.unique(chunks):
                chosen = inside[chunks == chunk]
                vectors[chosen] = part.read_chunk(int(chunk))[local[chosen] - chunk * part.plan.chunk_rows]
        return Embeddings(self.image_ids[rows] if len(rows) else np.array([], dtype=object), vectors, rows)

    def vector(self, image_id: str) -> npt.NDArray[Any]:
        """Return one image's vector, (dim,); raises DataError as `select` does."""
        return np.asarray(self.select([image_id]).vectors[0])

    def content_sha256(self) -> npt.NDArray[np.uint8]:
        """Return (rows, 32) uint8: digest of each image's decoded pixels, zero for failed and pending rows."""
        content = np.zeros((self.rows, CONTENT_BYTES), dtype=np.uint8)
        for offset, part in self._offsets():
            for chunk, receipt in part.receipts.items():
                content[offset + receipt.start : offset + receipt.stop] = part.read_content(chunk)
        return content

    def series_ranges(self) -> dict[str, tuple[float, float]]:
        """Return the value range of every MR series that has a finished row."""
        return {
            name: limits
            for part in self.parts
            for receipt in part.receipts.values()
            for name, limits in receipt.series_ranges.items()
        }

    def _offsets(self) -> list[tuple[int, Part]]:
        starts = np.cumsum([0, *(part.plan.rows for part in self.parts)])
        return [(int(start), part) for start, part in zip(starts, self.parts, strict=False)]

    def _placed_chunks(self) -> list[tuple[Part, int, int, int]]:
        """Return ``(part, chunk, first output row, end)`` of every finished chunk, packed without gaps."""
        placed, at = [], 0
        for part in self.parts:
            for chunk in sorted(part.receipts):
                receipt = part.receipts[chunk]
                placed.append((part, chunk, at, at + receipt.stop - receipt.start))
                at += receipt.stop - receipt.start
        return placed

    def _require_valid(self, image_id: str) -> int:
        row = self.row_of.get(image_id)
        if row is None:
            raise DataError(f"store {self.path} has no image {image_id!r}")
        if self.status[row] == PENDING:
            raise DataError(f"image {image_id!r} is planned but not extracted yet", advice=Advice.EXTRACT)
        if self.status[row] == FAILED:
            failure = next(entry for entry in self.failures if entry.row == row)
            raise DataError(f"image {image_id!r} has no vector: {failure.reason}: {failure.message}")
        return row

    def _facts(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "images": self.rows,
            "with_vector": int((self.status == VALID).sum()),
            "failed": int((self.status == FAILED).sum()),
            "encoder": self.identity.encoder,
            "dim": self.identity.dim,
            "dtype": str(self.dtype),
            "tasks": task_names(self.path),
        }


def open_store(path: StrPath) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    path
        The store's folder.

    Raises
    ------
    StoreError
        If the folder is not a store, or of a newer format version.
    CorruptStore
        If a document of the store is missing or damaged, or a chunk that a receipt names is missing or
        has the wrong size.

    Examples
    --------
    >>> store = es.open_store("mura.store")
    >>> store.embeddings().vectors.shape == (store.rows, 1152)
    True
    """
    path = Path(path)
    identity, listed = read_store_document(path)
    parts = []
    for entry in listed:
        layout = StoreLayout(path).part(entry["number"])
        plan, digest = read_part_plan(layout)
        if digest != entry["sha256"] or plan.identity != identity:
            raise CorruptStore(
                f"{layout.plan_file} is not the plan that store.json lists", advice=Advice.REPAIR
            )
        parts.append(open_part(layout, plan))
    return Store(path, identity, tuple(parts))


def open_part(layout: PartLayout, plan: PartPlan) -> Part:
    """Read a part's receipts and check that the chunks they name are there in full size."""
    names = {entry.name for entry in os.scandir(layout.receipts)} if layout.receipts.is_dir() else set()
    widths = {VECTORS: plan.dim * STORE_DTYPES[plan.dtype].itemsize, CONTENT: CONTENT_BYTES}
    receipts = {}
    for chunk in range(plan.chunks):
        if f"{chunk:06d}.json" not in names:
            continue
        receipts[chunk] = read_receipt(layout, plan, chunk)
        for name, width in widths.items():
            _check_size(layout.chunk_name(name, chunk), plan.chunk_rows * width + CRC_BYTES)
    return Part(layout, plan, receipts)


def _check_size(path: str, wanted: int) -> None:
    try:
        found = os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptStore(
            f"{path} is missing although its receipt is there", advice=Advice.REPAIR
        ) from error
    if found != wanted:
        raise CorruptStore(f"{path} must have {wanted:,} bytes, found {found:,}", advice=Advice.REPAIR)


def _read_chunk(path: str, out: npt.NDArray[Any]) -> None:
    """Fill `out` with the first rows of a chunk file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            got = os.readv(descriptor, [out.reshape(-1).view(np.uint8).data])
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CorruptStore(f"{path} cannot be read ({error.strerror})", advice=Advice.REPAIR) from error
    if got != out.nbytes:
        raise CorruptStore(f"{path} ends after {got:,} bytes of {out.nbytes:,}", advice=Advice.REPAIR)


def _fill(out: npt.NDArray[Any], jobs: Sequence[tuple[Part, int, int, int]]) -> None:
    """Read chunks into their rows of `out`."""
    for part, chunk, start, stop in jobs:
        if out.dtype == STORE_DTYPES[part.plan.dtype]:
            part.read_chunk(chunk, out=out[start:stop])
        else:
            out[start:stop] = part.read_chunk(chunk)


def as_store(store: Store | StrPath) -> Store:
    """Return a store that is open already as it is, and open one that is named by its folder."""
    return store if isinstance(store, Store) else open_store(store)
