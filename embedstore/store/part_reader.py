"""Reads one part, past Zarr: Zarr fills missing chunks silently and is slower.

Every read checks the chunk's bytes against the CRC-32C in its receipt, so a flipped, truncated, zeroed,
swapped or missing chunk raises instead of answering.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import Advice, CorruptStore, StoreError
from embedstore.files import sha256_bytes, table_of_parquet
from embedstore.manifest import Manifest
from embedstore.store.documents import read_receipt
from embedstore.store.layout import (
    CONTENT,
    CONTENT_BYTES,
    CONTENT_PLAN,
    CRC_BYTES,
    VECTORS,
    PartLayout,
    PartPlan,
    crc32c,
)
from embedstore.store.receipt import Failure, Receipt

PENDING, VALID, FAILED = 0, 1, 2


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

    def further_table(self, name: str) -> pa.Table:
        """Return one of the plan's further tables; raises CorruptStore if the file is not the one that was planned."""
        return table_of_parquet(_read_planned(self.layout.table(name), self.plan.tables[name]))

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

    def read_chunk(
        self, chunk: int, *, array: str = VECTORS, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Return the checked rows of a finished chunk; failed rows are NaN.

        Parameters
        ----------
        chunk
            A chunk with a receipt.
        array
            Which array.
        out
            Optional (rows of the chunk, *row shape) target of the array's dtype.
        """
        receipt, plan = self.receipts[chunk], self.plan.arrays[array]
        if out is None:
            out = np.empty((receipt.stop - receipt.start, *plan.row_shape), dtype=plan.numpy_dtype)
        path = self.layout.chunk_name(array, plan, chunk)
        _read_chunk(path, out)
        failed = receipt.failed
        covered = np.delete(out, failed, axis=0) if failed else out
        if crc32c(covered) != receipt.arrays[array].crc32c:
            self._require_own_receipt(chunk)
            raise CorruptStore(
                f"{path}: rows {receipt.start} to {receipt.stop - 1} are not the {array} that were committed",
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
        path = self.layout.chunk_name(CONTENT, CONTENT_PLAN, chunk)
        _read_chunk(path, content)
        failed = receipt.failed
        if sha256_bytes(np.delete(content, failed, axis=0).tobytes()) != receipt.content_sha256:
            self._require_own_receipt(chunk)
            raise CorruptStore(
                f"{path}: rows {receipt.start} to {receipt.stop - 1} are not the digests that were committed",
                advice=Advice.REPAIR,
            )
        content[failed] = 0
        return content

    def _require_own_receipt(self, chunk: int) -> None:
        """Raise StoreError if the chunk has another receipt by now, so that its bytes are those of another state."""
        if read_receipt(self.layout, self.plan, chunk) != self.receipts[chunk]:
            raise StoreError(
                f"{self.layout.folder}: images of chunk {chunk} were computed again since this store was opened; open "
                "it again"
            )

    def _read_manifest(self) -> bytes:
        return _read_planned(self.layout.manifest, self.plan.manifest_sha256)


def open_part(layout: PartLayout, plan: PartPlan) -> Part:
    """Read a part's receipts and check that the chunks they name are there in full size."""
    names = {entry.name for entry in os.scandir(layout.receipts)} if layout.receipts.is_dir() else set()
    receipts = {}
    for chunk in range(plan.chunks):
        if f"{chunk:06d}.json" not in names:
            continue
        receipts[chunk] = read_receipt(layout, plan, chunk)
        for name, array in plan.stored_arrays.items():
            _check_size(layout.chunk_name(name, array, chunk), plan.chunk_rows * array.row_bytes + CRC_BYTES)
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


def notes_of(parts: Iterable[tuple[int, Part]]) -> dict[str, list[int]]:
    """Return what was mended or left out to show images: code of `errors.Note` -> rows over all parts.

    Parameters
    ----------
    parts
        First row and part, as `Store.offsets` gives them.
    """
    found: dict[str, list[int]] = {}
    for offset, part in parts:
        for _, receipt in sorted(part.receipts.items()):
            for code, rows in receipt.notes.items():
                found.setdefault(code, []).extend(offset + row for row in rows)
    return dict(sorted(found.items()))


def _read_planned(path: Path, sha256: str) -> bytes:
    try:
        payload = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptStore(f"{path} is missing", advice=Advice.REPAIR) from error
    if sha256_bytes(payload) != sha256:
        raise CorruptStore(f"{path} was changed after the part was planned", advice=Advice.REPAIR)
    return payload
