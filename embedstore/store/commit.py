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

from embedstore.errors import Reason, StoreError
from embedstore.files import make_folder_durable, sha256_bytes, write_durable
from embedstore.identity import Identity
from embedstore.store.layout import (
    CONTENT,
    CONTENT_BYTES,
    STORE_DTYPES,
    VECTORS,
    Failure,
    PartPlan,
    Receipt,
    StoreLayout,
    crc32c,
    encode_chunk,
    write_document,
)


@dataclass(frozen=True)
class ChunkResult:
    """What an engine computed for one chunk.

    Parameters
    ----------
    vectors
        (rows of the chunk, dim) float32; rows named in `failures` are ignored.
    content
        (rows of the chunk, 32) uint8: digest of each image's decoded pixels.
    failures
        ``{row of the part: (reason, message)}``.
    series_ranges
        Value range of each MR series with a row in the chunk.
    rounding_error
        Largest rounding error of rows that were rounded before and are carried over.
    seconds
        Time spent on the chunk.
    device
        Where the encoder ran.
    """

    vectors: npt.NDArray[np.float32]
    content: npt.NDArray[np.uint8]
    failures: Mapping[int, tuple[Reason, str]] = field(default_factory=dict)
    series_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rounding_error: float = 0.0
    seconds: float = 0.0
    device: str = "cpu"


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
        if result.vectors.shape != (stop - start, plan.dim) or result.content.shape != (
            stop - start,
            CONTENT_BYTES,
        ):
            raise StoreError(
                f"chunk {chunk} needs {stop - start} vectors of {plan.dim} and digests of {CONTENT_BYTES} bytes; "
                f"found {result.vectors.shape} and {result.content.shape}"
            )
        stored, failures = round_vectors(result, dtype=plan.dtype, start=start)
        valid = np.ones(stop - start, dtype=bool)
        valid[[failure.row - start for failure in failures]] = False
        content = np.where(valid[:, None], result.content, 0).astype(np.uint8)
        layout = StoreLayout(self.root).part(plan.number)
        _write_chunk(
            layout.chunk(VECTORS, chunk),
            encode_chunk(stored, chunk_rows=plan.chunk_rows, fill=np.nan),
            VECTORS,
        )
        _write_chunk(
            layout.chunk(CONTENT, chunk), encode_chunk(content, chunk_rows=plan.chunk_rows, fill=0), CONTENT
        )
        error = np.abs(stored[valid].astype(np.float32) - result.vectors[valid]).max(
            initial=result.rounding_error
        )
        receipt = Receipt(
            chunk=chunk,
            start=start,
            stop=stop,
            vectors_sha256=sha256_bytes(stored[valid].tobytes()),
            vectors_crc32c=crc32c(stored[valid]),
            content_sha256=sha256_bytes(content[valid].tobytes()),
            failures=failures,
            rounding_error=float(error),
            series_ranges=dict(sorted(result.series_ranges.items())),
            seconds=round(result.seconds, 3),
            finished=timestamp(),
            host=socket.gethostname(),
            device=result.device,
            versions=self.versions,
        )
        write_document(layout.receipt(chunk), receipt.to_json(), label="receipt")
        return receipt


def round_vectors(
    result: ChunkResult, *, dtype: str, start: int
) -> tuple[npt.NDArray[Any], tuple[Failure, ...]]:
    """Round vectors to the store's dtype; rows that have none, or do not fit, become NaN.

    Parameters
    ----------
    result
        The engine's result.
    dtype
        ``float16`` or ``float32``.
    start
        First row of the chunk in its part.

    Returns
    -------
    vectors
        (rows, dim) of the store's little-endian dtype.
    failures
        Those of `result`, and ``non-finite`` or ``overflow`` ones found here, in row order.
    """
    store_dtype = STORE_DTYPES[dtype]
    failures = dict(result.failures)
    finite = np.asarray(np.isfinite(result.vectors).all(axis=1))
    limit = float(np.finfo(store_dtype).max)
    largest = np.abs(np.where(finite[:, None], result.vectors, 0)).max(axis=1, initial=0.0)
    for row in range(len(finite)):
        if start + row in failures:
            continue
        if not finite[row]:
            failures[start + row] = (Reason.NON_FINITE, "the encoder returned NaN or infinity for this image")
        elif largest[row] >= limit:
            failures[start + row] = (
                Reason.OVERFLOW,
                f"largest value {largest[row]:.6g} does not fit {dtype} (below {limit:.6g}); "
                "a store of float32 holds it",
            )
    stored = np.full(result.vectors.shape, np.nan, dtype=store_dtype)
    good = [row for row in range(len(finite)) if start + row not in failures]
    stored[good] = result.vectors[good].astype(store_dtype)
    return stored, tuple(Failure(row, *failures[row]) for row in sorted(failures))


def timestamp() -> str:
    """Return the present time, UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write_chunk(path: Path, payload: bytes, label: str) -> None:
    make_folder_durable(path.parent)
    write_durable(path, payload, label=label)
