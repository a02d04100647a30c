"""Writes a store: plans parts, commits units, keeps tasks.

Order is everything here. A part belongs to the store once ``store.json`` lists it, and a unit is finished
once its receipt lies in place; whatever was written before is invisible until then.
"""

from __future__ import annotations

import datetime
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import CorruptStore, DataError, Reason, StoreError, UsageError
from embedstore.files import (
    failpoint_names,
    make_folder_durable,
    remove_temporaries,
    sha256_bytes,
    write_durable,
    write_table_durable,
)
from embedstore.identity import Identity
from embedstore.manifest import Manifest
from embedstore.store.layout import (
    CONTENT,
    CONTENT_BYTES,
    STORE_DTYPES,
    VECTORS,
    Failure,
    PartLayout,
    PartPlan,
    Receipt,
    StoreLayout,
    crc32c,
    encode_chunk,
    read_store_document,
    write_document,
    write_store_document,
)
from embedstore.store.lock import writer_lock

FAILPOINTS = (
    *failpoint_names("store", "manifest", "table", "part"),
    *failpoint_names("vectors", "content", "receipt", "labels", "task"),
)


@dataclass(frozen=True)
class UnitResult:
    """What an engine computed for one unit.

    Parameters
    ----------
    vectors
        (rows of the unit, dim) float32; rows named in `failures` are ignored.
    content
        (rows of the unit, 32) uint8: digest of each image's decoded pixels.
    failures
        ``{row of the part: (reason, message)}``.
    series_ranges
        Value range of each MR series with a row in the unit.
    rounding_error
        Largest rounding error of rows that were rounded before and are carried over.
    seconds
        Time spent on the unit.
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
class StoreWriter:
    """The right to write to one store; `open_writer` gives it.

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

    def plan_part(
        self,
        manifest: Manifest,
        *,
        dataset: str,
        data_root: str,
        chunk_rows: int,
        dtype: str,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> PartPlan:
        """Plan a new part; its shape never changes afterwards.

        Parameters
        ----------
        manifest
            The records; none of their image ids may be in the store already.
        dataset, data_root
            Reader and folder, kept for information.
        chunk_rows
            Rows of a unit.
        dtype
            ``float16`` or ``float32``.
        tables
            Further tables to keep with the part.
        """
        if dtype not in STORE_DTYPES:
            raise UsageError(f"store dtype must be one of {', '.join(STORE_DTYPES)}; found {dtype!r}")
        if chunk_rows < 1:
            raise UsageError(f"chunk_rows must be at least 1; found {chunk_rows}")
        if not len(manifest):
            raise DataError(f"{data_root}: no image to extract; a part needs at least one record")
        _, listed = read_store_document(self.root)
        number = 1 + max((entry["number"] for entry in listed), default=-1)
        layout = StoreLayout(self.root).part(number)
        if layout.folder.exists():
            _discard_unlisted(layout)
        make_folder_durable(layout.receipts)
        payload = manifest.to_parquet()
        write_durable(layout.manifest, payload, label="manifest")
        digests = {
            name: write_table_durable(layout.table(name), table, label="table")
            for name, table in sorted((tables or {}).items())
        }
        plan = PartPlan(
            number=number,
            rows=len(manifest),
            chunk_rows=chunk_rows,
            dim=self.identity.dim,
            dtype=dtype,
            manifest_sha256=sha256_bytes(payload),
            tables=digests,
            dataset=dataset,
            root=data_root,
            created=_now(),
            identity=self.identity,
        )
        # Importing Zarr costs more than the rest of a run that finds nothing to do, so only planning does it.
        from embedstore.store.arrays import create_arrays

        create_arrays(layout, plan)
        digest = write_document(layout.plan_file, plan.to_json(), label="part")
        write_store_document(self.root, self.identity, [*listed, {"number": number, "sha256": digest}])
        return plan

    def commit(self, plan: PartPlan, unit: int, result: UnitResult) -> Receipt:
        """Write a unit's chunks and then its receipt; the unit exists when this returns.

        A unit that has a receipt may be committed again when more of its rows have a vector: digests cover
        the rows with a vector only, so every moment in between is valid under the old receipt.

        Raises
        ------
        OSError
            If the disk refuses (full, read-only); the unit is then as it was before.
        """
        start, stop = plan.bounds(unit)
        if result.vectors.shape != (stop - start, plan.dim) or result.content.shape != (
            stop - start,
            CONTENT_BYTES,
        ):
            raise StoreError(
                f"unit {unit} needs {stop - start} vectors of {plan.dim} and digests of {CONTENT_BYTES} bytes; "
                f"found {result.vectors.shape} and {result.content.shape}"
            )
        stored, failures = round_vectors(result, dtype=plan.dtype, start=start)
        valid = np.ones(stop - start, dtype=bool)
        valid[[failure.row - start for failure in failures]] = False
        content = np.where(valid[:, None], result.content, 0).astype(np.uint8)
        layout = StoreLayout(self.root).part(plan.number)
        _write_chunk(
            layout.chunk(VECTORS, unit),
            encode_chunk(stored, chunk_rows=plan.chunk_rows, fill=np.nan),
            VECTORS,
        )
        _write_chunk(
            layout.chunk(CONTENT, unit), encode_chunk(content, chunk_rows=plan.chunk_rows, fill=0), CONTENT
        )
        error = np.abs(stored[valid].astype(np.float32) - result.vectors[valid]).max(
            initial=result.rounding_error
        )
        receipt = Receipt(
            unit=unit,
            start=start,
            stop=stop,
            vectors_sha256=sha256_bytes(stored[valid].tobytes()),
            vectors_crc32c=crc32c(stored[valid]),
            content_sha256=sha256_bytes(content[valid].tobytes()),
            failures=failures,
            rounding_error=float(error),
            series_ranges=dict(sorted(result.series_ranges.items())),
            seconds=round(result.seconds, 3),
            finished=_now(),
            host=socket.gethostname(),
            device=result.device,
            versions=self.versions,
        )
        write_document(layout.receipt(unit), receipt.to_json(), label="receipt")
        return receipt


@contextmanager
def open_writer(
    root: Path, identity: Identity, *, say: Callable[[str], None], versions: Mapping[str, str] | None = None
) -> Iterator[StoreWriter]:
    """Create the store at `root`, or open it, for writing.

    Raises
    ------
    IdentityMismatch
        If the store holds another identity.
    StoreBusy
        If another process writes to it.
    StoreError
        If `root` is something else than a store, or cannot be written.
    """
    layout = StoreLayout(root)
    if not layout.store_file.exists():
        _require_creatable(root)
        try:
            make_folder_durable(root)
        except (PermissionError, NotADirectoryError) as error:
            raise StoreError(f"{root} cannot be created: {error.strerror}") from error
    with writer_lock(layout.lock_file, say=say) as lock:
        if layout.store_file.exists():
            held, _ = read_store_document(root)
            held.require_same(identity, holder=f"store {root}")
        else:
            write_store_document(root, identity, [])
        if lock.taken_over:
            remove_temporaries(root)
        yield StoreWriter(root, identity, versions or {})


def round_vectors(
    result: UnitResult, *, dtype: str, start: int
) -> tuple[npt.NDArray[Any], tuple[Failure, ...]]:
    """Round vectors to the store's dtype; rows that have none, or do not fit, become NaN.

    Parameters
    ----------
    result
        The engine's result.
    dtype
        ``float16`` or ``float32``.
    start
        First row of the unit in its part.

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
                "use --store-dtype float32",
            )
    stored = np.full(result.vectors.shape, np.nan, dtype=store_dtype)
    good = [row for row in range(len(finite)) if start + row not in failures]
    stored[good] = result.vectors[good].astype(store_dtype)
    return stored, tuple(Failure(row, *failures[row]) for row in sorted(failures))


def _discard_unlisted(layout: PartLayout) -> None:
    """Remove a part that was being planned when the process died; refuse if it was ever extracted into."""
    if layout.receipts.is_dir() and any(layout.receipts.glob("*.json")):
        raise CorruptStore(
            f"{layout.folder} holds finished units but store.json does not list it. "
            "Run: embed verify --repair"
        )
    shutil.rmtree(layout.folder)


def _require_creatable(root: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise StoreError(f"{root} is a file; a store is a folder")
    strangers = sorted(
        entry.name
        for entry in root.iterdir()
        if entry.name != StoreLayout(root).lock_file.name and not entry.name.endswith(".tmp")
    )
    if strangers:
        # read_store_document has the right words for a folder that is something else.
        read_store_document(root)


def _write_chunk(path: Path, payload: bytes, label: str) -> None:
    make_folder_durable(path.parent)
    write_durable(path, payload, label=label)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
