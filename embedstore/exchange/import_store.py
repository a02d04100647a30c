"""Makes an ordinary store of vectors that another tool has computed, chunk by chunk and crash-safely."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.brief import Brief
from embedstore.errors import DataError, IdentityMismatch, Note, UsageError
from embedstore.exchange.declared import declared_identity
from embedstore.exchange.feature_rows import FeatureRows, open_feature_rows
from embedstore.exchange.import_records import (
    ImportRecords,
    TableChoice,
    changed_columns,
    ids_in_order,
    records_of_table,
    records_without_table,
)
from embedstore.files import StrPath
from embedstore.identity import Identity
from embedstore.store.commit import ChunkResult
from embedstore.store.documents import read_store_document
from embedstore.store.layout import CONTENT_BYTES, STORE_DTYPES, StoreLayout
from embedstore.store.part_reader import notes_of
from embedstore.store.reader import FAILED, PENDING, VALID, Part, Store, open_store
from embedstore.store.writer import StoreWriter, open_writer
from embedstore.tables.remarks import describe_remarks

DATASET = "import"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How vectors are found and kept.

    Parameters
    ----------
    id_column
        Array or column of the features with an id for each vector. Without one, each file is a slide with a bag of
        patches, unless its tensors are named by ids.
    array
        Array or column with the vectors (a pattern, ``f*``, for one column for each dimension); by default found by
        its name.
    in_order
        The vectors of the one file stand in the order of the table's rows, and have its ids.
    manifest_id_column, columns
        `TableChoice.id_column` and `TableChoice.columns`.
    store_dtype
        ``float16`` or ``float32``; None for ``float16`` where all features are of it, else ``float32``.
    chunk_rows
        Rows of a chunk; None as for an extraction.
    """

    id_column: str | None = None
    array: str | None = None
    in_order: bool = False
    manifest_id_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    store_dtype: str | None = None
    chunk_rows: int | None = None


@dataclass(frozen=True, repr=False)
class ImportSummary(Brief):
    """What an import did, and how the store stands for the images that it names.

    Parameters
    ----------
    images
        Images with a vector in the features and, where there is a table, a row in it.
    valid, pending
        Those that have a vector in the store, and those that wait for another file.
    failed
        Reason -> number of those whose vector cannot be kept.
    known
        Those that the store had before.
    zero
        Those whose vector is zero.
    slides
        How many slides the vectors are patches of; 0 where each is an image of its own.
    unlisted, absent
        `ImportRecords.unlisted` and `ImportRecords.absent`.
    """

    images: int
    valid: int
    pending: int
    failed: Mapping[str, int]
    known: int
    zero: int
    slides: int
    unlisted: Sequence[str]
    absent: Sequence[str]

    @property
    def failed_share(self) -> float:
        """Failed images among those tried, 0 to 1."""
        tried = self.valid + sum(self.failed.values())
        return sum(self.failed.values()) / tried if tried else 0.0

    def _facts(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "valid": self.valid,
            "failed": dict(self.failed),
            "known": self.known,
            "unlisted": len(self.unlisted),
            "absent": len(self.absent),
        }


def import_vectors(
    features: StrPath,
    store: StrPath,
    *,
    declare: Mapping[str, str],
    manifest: StrPath | None = None,
    options: ImportOptions | None = None,
    say: Callable[[str], None] | None = None,
) -> ImportSummary:
    """Import vectors into a store, which is created if missing; the same import continues an interrupted one.

    Parameters
    ----------
    features
        An HDF5, npz, Parquet or safetensors file, or a folder of them with a file for each slide.
    store
        Folder of the store, of imported vectors of the same declaration.
    declare
        What the vectors are: ``{"encoder": "uni2", "revision": "...", ...}``. It becomes their identity, so that
        vectors which are declared otherwise never mix with them.
    manifest
        Table (CSV, Parquet or JSON lines) of the images, or of the slides; vectors that it does not name are left out.
    options
        See `ImportOptions`.
    say
        Takes lines for people.

    Raises
    ------
    DataError
        If the features or the table cannot be read, do not fit each other, have an id twice, or differ from what the
        store holds under the same ids. What was committed before stays.
    IdentityMismatch
        If the store holds vectors that were computed, or declared otherwise.
    StoreBusy
        If another process writes to the store.

    Examples
    --------
    >>> es.export_store("mura.store", "features.npz").rows == store.rows
    True
    >>> summary = es.import_vectors(
    ...     "features.npz", "imported.store", declare={"encoder": "hog-of-a-colleague"},
    ...     options=es.ImportOptions(id_column="image_id"),
    ... )
    >>> summary.valid == store.rows
    True
    >>> bool((es.open_store("imported.store").embeddings().vectors == store.embeddings().vectors).all())
    True
    """
    asked, root = options or ImportOptions(), Path(store)
    if asked.store_dtype not in (None, *STORE_DTYPES):
        raise UsageError(
            f"`store_dtype` must be one of {', '.join(STORE_DTYPES)}; found {asked.store_dtype!r}"
        )
    declared_identity(declare, dim=1)
    rows = open_feature_rows(Path(features), array=asked.array, id_column=asked.id_column)
    rows, records = _records(rows, None if manifest is None else Path(manifest), asked)
    tell = say or _ignore
    for subject, words in describe_remarks(records.remarks).items():
        tell(f"{subject}: {words}")
    identity = declared_identity(declare, dim=rows.dim)
    _require_imported(root, identity)
    plan = _Import(rows, records, asked)
    with open_writer(root, identity, say=tell) as writer:
        before = open_store(root)
        known = plan.require_same(before)
        after = plan.commit(writer, plan.planned(writer, before))
    return plan.summary(after, known=known)


@dataclass(frozen=True)
class _Import:
    """Vectors and records on their way into a store."""

    rows: FeatureRows
    records: ImportRecords
    asked: ImportOptions

    def store_rows(self, store: Store) -> npt.NDArray[np.int64]:
        """Return for every vector the row of the store that it belongs to, -1 for none, (vectors,) int64."""
        found = np.full(len(self.rows), -1, dtype=np.int64)
        for at, image_id in zip(
            self.records.positions, self.records.manifest.column("image_id"), strict=True
        ):
            found[at] = store.row_of.get(image_id, -1)
        return found

    def require_same(self, store: Store) -> int:
        """Refuse vectors or cells that differ from what the store has of the same images; return how many those are."""
        target = self.store_rows(store)
        self._require_same_cells(store, target[self.records.positions])
        held = target >= 0
        held[held] = store.status[target[held]] == VALID
        if not held.any():
            return 0
        content = store.content_sha256()
        different: list[str] = []
        for start, block in self.rows.blocks():
            different += [
                self.rows.ids[start + at]
                for at in np.flatnonzero(held[start : start + len(block)])
                if _digest(block[at]).tobytes() != content[target[start + at]].tobytes()
            ]
        if different:
            raise DataError(
                f"store {store.path} has other vectors of {len(different):,} images than the features: "
                f"{', '.join(map(repr, different[:3]))}. A vector never changes in a store; import into another one"
            )
        return int(held.sum())

    def _require_same_cells(self, store: Store, rows: npt.NDArray[np.int64]) -> None:
        known = np.flatnonzero(rows >= 0)
        if not len(known):
            return
        columns, images = changed_columns(
            store.table.take(pa.array(rows[known])), self.records.manifest.table.take(pa.array(known))
        )
        if columns:
            raise DataError(
                f"the table says something else of {images:,} images than when they were imported into store "
                f"{store.path} ({', '.join(columns)}). Import into another store"
            )

    def planned(self, writer: StoreWriter, store: Store) -> Store:
        """Plan a part for the images that the store has no row of, and return the store with it."""
        new = self.records.manifest
        if store.parts:
            new = new.without(store.table.column("image_id").combine_chunks())
        if not len(new):
            return store
        narrow = self.rows.dtype == np.float16
        writer.plan_part(
            new,
            dataset=DATASET,
            data_root=str(self.rows.root.absolute()),
            chunk_rows=self.asked.chunk_rows,
            dtype=self.asked.store_dtype or ("float16" if narrow else "float32"),
        )
        return open_store(writer.root)

    def commit(self, writer: StoreWriter, store: Store) -> Store:
        """Commit every chunk without a receipt as soon as all of its vectors are read; return the store after it."""
        target = self.store_rows(store)
        waiting = {
            (index, chunk): _Waiting(part, chunk, self.rows.dim)
            for index, (_, part) in enumerate(store.offsets())
            for chunk in part.pending
        }
        if not waiting:
            return store
        offsets = np.array([offset for offset, _ in store.offsets()])
        for start, block in self.rows.blocks():
            wanted = target[start : start + len(block)]
            inside = np.flatnonzero(wanted >= 0)
            parts = np.searchsorted(offsets, wanted[inside], side="right") - 1
            for index in np.unique(parts):
                part = store.parts[index]
                of_part = inside[parts == index]
                local = wanted[of_part] - offsets[index]
                for chunk in np.unique(local // part.plan.chunk_rows):
                    place = waiting.get((int(index), int(chunk)))
                    if place is None:
                        continue
                    chosen = local // part.plan.chunk_rows == chunk
                    place.fill(local[chosen], block[of_part[chosen]])
                    if place.is_full:
                        writer.commit(part.plan, int(chunk), place.result())
                        del waiting[int(index), int(chunk)]
        return open_store(writer.root)

    def summary(self, store: Store, *, known: int) -> ImportSummary:
        """Return how the store stands for the images of this import."""
        target = self.store_rows(store)
        rows = target[target >= 0]
        status, asked = store.status[rows], set(rows.tolist())
        failed = Counter(failure.reason.value for failure in store.failures if failure.row in asked)
        return ImportSummary(
            images=len(rows),
            valid=int((status == VALID).sum()),
            pending=int((status == PENDING).sum()),
            failed=dict(sorted(failed.items())) if (status == FAILED).any() else {},
            known=known,
            zero=len(asked & set(notes_of(store.offsets()).get(Note.ZERO_VECTOR, []))),
            slides=len(set(self.records.manifest.column("path"))) if self.rows.are_bags else 0,
            unlisted=self.records.unlisted,
            absent=self.records.absent,
        )


class _Waiting:
    """A chunk whose vectors are still being read."""

    def __init__(self, part: Part, chunk: int, dim: int) -> None:
        self.chunk = chunk
        self.start, self.stop = part.plan.bounds(chunk)
        self._dim = dim
        self._vectors: Floats = np.zeros((0, dim), np.float32)
        self._began = perf_counter()
        self._filled = np.zeros(self.stop - self.start, dtype=bool)

    @property
    def is_full(self) -> bool:
        """Whether every vector is there."""
        return bool(self._filled.all())

    def fill(self, rows: npt.NDArray[np.int64], vectors: Floats) -> None:
        """Put in the vectors of some rows of the part."""
        if not len(self._vectors):
            self._vectors = np.full((self.stop - self.start, self._dim), np.nan, np.float32)
            self._began = perf_counter()
        self._vectors[rows - self.start] = vectors
        self._filled[rows - self.start] = True

    def result(self) -> ChunkResult:
        """Return the chunk as an encoder would have; the content's digest is that of the vector as it came."""
        content = np.stack([_digest(row) for row in self._vectors])
        return ChunkResult(self._vectors, content, seconds=perf_counter() - self._began, device=DATASET)


def _digest(vector: Floats) -> npt.NDArray[np.uint8]:
    """Return the SHA-256 of a vector, float32 and little-endian, (32,) uint8."""
    digest = hashlib.sha256(vector.astype("<f4", copy=False).tobytes()).digest()
    return np.frombuffer(digest, np.uint8, CONTENT_BYTES)


def _records(
    rows: FeatureRows, table: Path | None, asked: ImportOptions
) -> tuple[FeatureRows, ImportRecords]:
    _require_known_kind(rows, asked)
    if table is None:
        if asked.in_order or asked.manifest_id_column or asked.columns:
            raise UsageError(
                "`in_order`, `manifest_id_column` and a mapping of columns speak of a table; `manifest` names it"
            )
        return rows, records_without_table(rows)
    choice = TableChoice(path=table, id_column=asked.manifest_id_column, columns=asked.columns)
    if asked.in_order:
        if len(rows.files) > 1 or not rows.are_bags:
            raise UsageError("`in_order` is for one file whose vectors have no ids of their own")
        ids = ids_in_order(rows, choice)
        rows = replace(rows, files=(replace(rows.files[0], ids=ids, coordinates=None),))
    return rows, records_of_table(rows, choice)


def _require_known_kind(rows: FeatureRows, asked: ImportOptions) -> None:
    """Refuse a single file that may be a table of images without its option, or the patches of a slide."""
    file = rows.files[0]
    known = file.ids is not None or file.coordinates is not None or file.is_whole
    if not (known or rows.in_folder or asked.in_order):
        raise UsageError(
            f"{file.path}: `id_column` must name the array or column with the ids of its {file.rows:,} vectors; "
            "`in_order` takes those of a table's rows. (One slide without coords is read in a folder of its own.)"
        )


def _require_imported(root: Path, identity: Identity) -> None:
    """Refuse a store whose vectors were computed, in words that fit."""
    if not StoreLayout(root).store_file.exists():
        return
    held, _ = read_store_document(root)
    if not held.declared:
        raise IdentityMismatch(
            f"store {root} holds vectors that were computed by {held.encoder!r}; imported ones, declared to be of "
            f"{identity.encoder!r}, never mix with them. Name another store"
        )


def _ignore(line: str) -> None:
    del line
