"""Opens a store for writing, alone or among other workers, and plans its parts.

Order is everything here. A part belongs to the store once ``store.json`` lists it, and a chunk is finished
once its receipt lies in place; whatever was written before is invisible until then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from embedstore.errors import Advice, CorruptStore, DataError, StoreBusy, StoreError, UsageError
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
from embedstore.store.commit import FURTHER, ChunkWriter, timestamp
from embedstore.store.documents import (
    open_store_document,
    read_store_document,
    write_document,
    write_store_document,
)
from embedstore.store.layout import (
    FORMAT_VERSION,
    STORE_DTYPES,
    PartLayout,
    PartPlan,
    StoreLayout,
    default_chunk_rows,
    planned_arrays,
)
from embedstore.store.store_lock import PLANNING, WRITING, has_traces, worker_lock, writer_lock

FAILPOINTS = (
    *failpoint_names("store", "manifest", "table", "group", "part"),
    *failpoint_names("vectors", FURTHER, "content", "receipt", "labels", "task"),
)


@dataclass(frozen=True)
class StoreWriter(ChunkWriter):
    """The right to plan parts and commit chunks, held alone; `open_writer` gives it."""

    def plan_part(
        self,
        manifest: Manifest,
        *,
        dataset: str,
        data_root: str,
        chunk_rows: int | None = None,
        dtype: str,
        tables: Mapping[str, pa.Table] | None = None,
        phantom: bool = False,
        key_fingerprint: str = "",
        hides_paths: bool = False,
    ) -> PartPlan:
        """Plan a new part; its shape never changes afterwards.

        Parameters
        ----------
        manifest
            The records; none of their image ids may be in the store already.
        dataset, data_root
            Reader and folder, kept for information.
        chunk_rows
            Rows of a chunk; None for as many as make its largest array about 16 MiB, 256 at most.
        dtype
            ``float16`` or ``float32``, for every array that holds what the encoder gave.
        tables
            Further tables to keep with the part.
        phantom
            Whether the images are drawn by a computer, kept for information.
        key_fingerprint, hides_paths
            As `PartPlan`.
        """
        if dtype not in STORE_DTYPES:
            raise UsageError(f"store dtype must be one of {', '.join(STORE_DTYPES)}; found {dtype!r}")
        if chunk_rows is not None and chunk_rows < 1:
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
        arrays = planned_arrays(self.identity, dtype)
        plan = PartPlan(
            number=number,
            rows=len(manifest),
            chunk_rows=chunk_rows or default_chunk_rows(arrays),
            arrays=arrays,
            manifest_sha256=sha256_bytes(payload),
            tables=digests,
            dataset=dataset,
            root=data_root,
            created=timestamp(),
            identity=self.identity,
            phantom=phantom,
            key_fingerprint=key_fingerprint,
            hides_paths=hides_paths,
        )
        # Importing Zarr costs more than the rest of a run that finds nothing to do, so only planning does it.
        from embedstore.store.zarr_arrays import create_arrays

        create_arrays(layout, plan)
        digest = write_document(layout.plan_file, plan.to_json(), label="part")
        write_store_document(self.root, self.identity, [*listed, {"number": number, "sha256": digest}])
        return plan


@contextmanager
def open_writer(
    root: Path,
    identity: Identity,
    *,
    say: Callable[[str], None],
    versions: Mapping[str, str] | None = None,
    purpose: str = WRITING,
) -> Iterator[StoreWriter]:
    """Create the store at `root`, or open it, for writing alone.

    Parameters
    ----------
    root
        The store's folder.
    identity
        What its vectors are.
    say
        Receives one line when the lock of a dead writer is taken over.
    versions
        Library versions, noted in receipts.
    purpose
        ``writing``, or ``planning`` for what takes moments.

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
    with writer_lock(layout.lock_file, say=say, purpose=purpose) as lock:
        if layout.store_file.exists():
            held, listed = read_store_document(root)
            held.require_same(identity, holder=f"store {root}")
            if open_store_document(root)["format_version"] < FORMAT_VERSION:
                # Documents of this version may hold what an earlier program would take for damage.
                write_store_document(root, identity, listed)
        else:
            write_store_document(root, identity, [])
        if lock.taken_over:
            remove_temporaries(root)
        yield StoreWriter(root, identity, versions or {})


@contextmanager
def join_writers(
    root: Path,
    identity: Identity,
    *,
    worker: str,
    say: Callable[[str], None],
    versions: Mapping[str, str] | None = None,
) -> Iterator[ChunkWriter]:
    """Open an existing store to commit chunks while other workers do the same.

    The last worker to leave cleans up after those that died.

    Parameters
    ----------
    root, identity, say, versions
        As `open_writer`.
    worker
        Name of this worker; no other process may use it at the same time.

    Raises
    ------
    IdentityMismatch
        If the store holds another identity.
    StoreBusy
        If a process has the store alone, or works under the same name.
    StoreError
        If `root` is no store, or cannot be written.
    """
    held, _ = read_store_document(root)
    held.require_same(identity, holder=f"store {root}")
    with worker_lock(StoreLayout(root).lock_file, worker, say=say):
        yield ChunkWriter(root, identity, versions or {})
    clean_up_after_workers(root, say=say)


def clean_up_after_workers(root: Path, *, say: Callable[[str], None]) -> None:
    """Remove what dead workers left half-written, unless somebody is at work: then the last one does it."""
    if not has_traces(root):
        return
    try:
        with writer_lock(StoreLayout(root).lock_file, say=say, purpose=PLANNING):
            remove_temporaries(root)
    except StoreBusy:
        return


def _discard_unlisted(layout: PartLayout) -> None:
    """Remove a part that was being planned when the process died; refuse if it was ever extracted into."""
    if layout.receipts.is_dir() and any(layout.receipts.glob("*.json")):
        raise CorruptStore(
            f"{layout.folder} holds finished chunks but store.json does not list it", advice=Advice.REPAIR
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
