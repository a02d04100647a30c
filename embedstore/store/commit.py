"""Commits chunks: the files of their arrays first, then the receipt that makes them exist."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import Note, Reason, StoreError
from embedstore.files import FileState, make_folder_durable, sha256_bytes, write_durable
from embedstore.identity import Identity
from embedstore.store.documents import write_document
from embedstore.store.layout import (
    CONTENT,
    STORE_DTYPES,
    VECTORS,
    PartPlan,
    StoreLayout,
    crc32c,
    encode_chunk,
)
from embedstore.store.receipt import ArrayDigest, Failure, Receipt, pack_sources

# Label of the failpoints of every array beyond the vectors.
FURTHER = "further"


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What was computed for rows of one chunk.

    Parameters
    ----------
    vectors
        (rows, dim) float32; rows named in `failures` are ignored.
    content
        (rows, 32) uint8: digest of each image's decoded pixels.
    failures
        ``{row of the part: (reason, message)}``.
    series_ranges
        Value range of each MR series with a row in the chunk.
    notes
        What was mended or left out to show images: code of `errors.Note` -> rows of the part, ascending.
    sources
        How each row's file was before it was read; None where that is not known.
    further
        Array -> (rows, *row shape) float32, for every further array of the identity.
    rounding_errors
        Array -> largest rounding error of rows that were rounded before and are carried over.
    seconds
        Time spent on the chunk.
    device
        Where the encoder ran.
    """

    vectors: npt.NDArray[np.float32]
    content: npt.NDArray[np.uint8]
    failures: Mapping[int, tuple[Reason, str]] = field(default_factory=dict)
    series_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sources: tuple[FileState | None, ...] = ()
    further: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    rounding_errors: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"

    @property
    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """All arrays by name, the vectors among them."""
        return {VECTORS: self.vectors, **self.further}


@dataclass(frozen=True)
class ChunkWriter:
    """The right to commit chunks of planned parts; `join_writers` gives it to many at once.

    Parameters
    ----------
    root
        The store's folder.
    identity
        The store's identity.
    versions
        Library versions, noted in receipts.
    """

    root: Path
    identity: Identity
    versions: Mapping[str, str] = field(default_factory=dict)

    def commit(self, plan: PartPlan, chunk: int, result: ChunkResult) -> Receipt:
        """Write a chunk's files and then its receipt; the chunk exists when this returns.

        A chunk that has a receipt may be committed again when more of its rows have a vector: digests cover
        the rows with a vector only, so every moment in between is valid under the old receipt. Two writers
        that commit the same chunk write the same bytes, so their renames may interleave in any order.

        Raises
        ------
        OSError
            If the disk refuses (full, read-only); the chunk is then as it was before.
        """
        start, stop = plan.bounds(chunk)
        _check_shapes(plan, chunk, result)
        stored, failures = round_rows(
            result, {name: array.dtype for name, array in plan.arrays.items()}, start=start
        )
        valid = np.ones(stop - start, dtype=bool)
        valid[[failure.row - start for failure in failures]] = False
        content = np.where(valid[:, None], result.content, 0).astype(np.uint8)
        layout = StoreLayout(self.root).part(plan.number)
        for name, array in plan.stored_arrays.items():
            rows = content if name == CONTENT else stored[name]
            path = layout.chunk(name, array, chunk)
            make_folder_durable(path.parent)
            label = name if name in (VECTORS, CONTENT) else FURTHER
            write_durable(path, encode_chunk(rows, array, chunk_rows=plan.chunk_rows), label=label)
        receipt = Receipt(
            chunk=chunk,
            start=start,
            stop=stop,
            arrays={
                name: _digest(
                    stored[name][valid],
                    result.arrays[name][valid],
                    carried=result.rounding_errors.get(name, 0.0),
                )
                for name in plan.arrays
            },
            content_sha256=sha256_bytes(content[valid].tobytes()),
            failures=failures,
            series_ranges=dict(sorted(result.series_ranges.items())),
            notes=_notes(result, stored[VECTORS], start=start),
            sources=pack_sources(result.sources),
            seconds=round(result.seconds, 3),
            finished=timestamp(),
            host=socket.gethostname(),
            device=result.device,
            versions=self.versions,
        )
        write_document(layout.receipt(chunk), receipt.to_json(), label="receipt")
        return receipt


def round_rows(
    result: ChunkResult, dtypes: Mapping[str, str], *, start: int
) -> tuple[dict[str, npt.NDArray[Any]], tuple[Failure, ...]]:
    """Round arrays to the store's dtype; a row that is missing from one, or does not fit it, is NaN in all.

    Parameters
    ----------
    result
        The engine's result.
    dtypes
        Array -> ``float16`` or ``float32``; only these are rounded.
    start
        First row of the chunk in its part.

    Returns
    -------
    arrays
        Array -> (rows, *row shape) of the store's little-endian dtype.
    failures
        Those of `result`, and ``non-finite`` or ``overflow`` ones found here, in row order.
    """
    failures = dict(result.failures)
    for name, dtype in dtypes.items():
        rows = result.arrays[name]
        what = "" if name == VECTORS else f" in {name}"
        limit = float(np.finfo(STORE_DTYPES[dtype]).max)
        flat = rows.reshape(len(rows), -1)
        # NaN and infinity of either sign come through, and no copy of the rows is made.
        largest = np.maximum(flat.max(axis=1), -flat.min(axis=1))
        for row in range(len(rows)):
            if start + row in failures:
                continue
            if not np.isfinite(largest[row]):
                message = f"the encoder returned NaN or infinity{what} for this image"
                failures[start + row] = (Reason.NON_FINITE, message)
            elif largest[row] >= limit:
                failures[start + row] = (
                    Reason.OVERFLOW,
                    f"largest value {largest[row]:.6g}{what} does not fit {dtype} (below {limit:.6g}); "
                    "a store of float32 holds it",
                )
    good = [row for row in range(len(result.vectors)) if start + row not in failures]
    stored = {}
    for name, dtype in dtypes.items():
        rows = result.arrays[name]
        stored[name] = np.full(rows.shape, np.nan, dtype=STORE_DTYPES[dtype])
        stored[name][good] = rows[good].astype(STORE_DTYPES[dtype])
    return stored, tuple(Failure(row, *failures[row]) for row in sorted(failures))


def _check_shapes(plan: PartPlan, chunk: int, result: ChunkResult) -> None:
    start, stop = plan.bounds(chunk)
    wanted = {name: (stop - start, *array.row_shape) for name, array in plan.stored_arrays.items()}
    found = {name: rows.shape for name, rows in result.arrays.items()} | {CONTENT: result.content.shape}
    if found != wanted:
        raise StoreError(f"chunk {chunk} of part {plan.number} needs arrays of shape {wanted}; found {found}")


def _notes(result: ChunkResult, vectors: npt.NDArray[Any], *, start: int) -> dict[str, tuple[int, ...]]:
    """Return the notes on a chunk's images, with the rows whose stored vector is zero among them."""
    # A failed row is NaN.
    zero = tuple(int(row) for row in start + np.flatnonzero(~vectors.any(axis=1)))
    found = {code: rows for code, rows in result.notes.items() if code != Note.ZERO_VECTOR}
    return dict(sorted({**found, **({Note.ZERO_VECTOR.value: zero} if zero else {})}.items()))


def _digest(stored: npt.NDArray[Any], computed: npt.NDArray[np.float32], *, carried: float) -> ArrayDigest:
    error = np.abs(stored.astype(np.float32) - computed).max(initial=carried)
    return ArrayDigest(sha256_bytes(stored.tobytes()), crc32c(stored), float(error))


def timestamp() -> str:
    """Return the present time, UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
