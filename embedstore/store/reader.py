"""Reads a store: a row exists if and only if a receipt says so."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.brief import Brief
from embedstore.errors import Advice, CorruptStore, DataError, MissingDependency, UsageError, did_you_mean
from embedstore.files import StrPath
from embedstore.identity import Identity
from embedstore.manifest import joined_tables
from embedstore.store.documents import read_part_plan, read_store_document
from embedstore.store.layout import CONTENT_BYTES, VECTORS, StoreLayout
from embedstore.store.part_reader import FAILED, PENDING, VALID, Part, open_part
from embedstore.store.receipt import Failure
from embedstore.store.stored_array import StoredArray
from embedstore.store.tasks import read_task, task_names, with_ids, with_labels, with_vectors
from embedstore.tokens.grid import TOKENS
from embedstore.view import ArrayRows, Embeddings, Source

__all__ = [
    "FAILED",
    "PENDING",
    "VALID",
    "ArrayRows",
    "Embeddings",
    "Part",
    "Store",
    "StoredArray",
    "as_store",
    "open_store",
]


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
        """The widest dtype of the parts' vectors, in native byte order; float16 for an empty store."""
        return self.array(VECTORS).dtype

    @cached_property
    def table(self) -> pa.Table:
        """The manifests of all parts, one row per planned row, joined as `joined_tables` does."""
        return joined_tables([part.manifest.table for part in self.parts])

    @cached_property
    def image_ids(self) -> npt.NDArray[np.object_]:
        """(rows,) object array of str."""
        # Arrow's `to_numpy` is no faster, and imports pandas: a third of a second before a search's first answer.
        columns = [part.image_id_table().column("image_id").to_pylist() for part in self.parts]
        return np.concatenate([np.array([], object), *(np.array(ids, object) for ids in columns)])

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
            for offset, part in self.offsets()
            for failure in part.failures
        ]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, sorted."""
        return task_names(self.path)

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the parts were made from, each data set once, without the paths of the machine that made it."""
        name, plans = self.path.absolute().name, [part.plan for part in self.parts]
        folders = ["" if plan.hides_paths else PurePath(plan.root).name.strip(".") for plan in plans]
        found = (
            Source(name, plan.dataset, at, plan.phantom) for plan, at in zip(plans, folders, strict=True)
        )
        return tuple(dict.fromkeys(found))

    def array(self, name: str) -> StoredArray:
        """Return one of the store's arrays, to be read whole or by image id.

        Parameters
        ----------
        name
            ``vectors``, or a further array that the identity names.

        Raises
        ------
        UsageError
            If the store has no such array.
        """
        names = [VECTORS, *sorted(self.identity.arrays)]
        if name not in names:
            raise UsageError(
                f"store {self.path} has no array {name!r}; its arrays: {', '.join(names)}"
                f"{did_you_mean(name, names)}"
            )
        return StoredArray(self, name)

    def further_table(self, name: str) -> pa.Table:
        """Return the rows of a further table of the data set (label coordinates and the like), over all parts.

        Parameters
        ----------
        name
            As the data set calls it: ``coordinates``.

        Raises
        ------
        UsageError
            If no part has such a table.
        CorruptStore
            If the file of one is not what was written.
        """
        known = sorted({table for part in self.parts for table in part.plan.tables})
        if name not in known:
            raise UsageError(
                f"store {self.path} has no table {name!r}; its tables: {', '.join(known) or 'none'}"
                f"{did_you_mean(name, known)}"
            )
        return joined_tables([part.further_table(name) for part in self.parts if name in part.plan.tables])

    def tokens(
        self, image_ids: Sequence[str] | None = None, *, dtype: npt.DTypeLike | None = None
    ) -> ArrayRows:
        """Return token grids, a place of each picture: (n, token rows, token columns, numbers kept).

        Row 0 is the top of the encoder's square picture and column 0 its left.

        Parameters
        ----------
        image_ids
            The images, in this order; all that there are by default, which may not fit in memory.
        dtype
            ``float16`` or ``float32``; by default as stored.

        Raises
        ------
        UsageError
            If the store was extracted without tokens.
        DataError
            If an id is unknown, not extracted yet, or failed.
        CorruptStore
            If the bytes of a chunk with one of them are not the committed ones.

        Examples
        --------
        >>> options = es.ExtractOptions(limit=8)
        >>> summary = es.extract("mura", "grids.store", "hog", root="MURA-v1.1", tokens=4, options=options)
        >>> es.open_store("grids.store").tokens().values.shape
        (8, 12, 12, 4)
        """
        if TOKENS not in self.identity.arrays:
            raise UsageError(f"store {self.path} has no tokens. Extract into a new store with `tokens`")
        found = self.array(TOKENS)
        return found.all(dtype=dtype) if image_ids is None else found.select(image_ids, dtype=dtype)

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
        found = self.array(VECTORS).all(dtype=dtype)
        return Embeddings(found.image_ids, found.values, found.rows)

    def select(self, image_ids: Sequence[str], *, dtype: npt.DTypeLike | None = None) -> Embeddings:
        """Return the vectors of `image_ids`, in that order.

        Raises
        ------
        DataError
            If an id is unknown, not extracted yet, or failed; the message names the first one and says which.
        """
        found = self.array(VECTORS).select(image_ids, dtype=dtype)
        return Embeddings(found.image_ids, found.values, found.rows)

    def vector(self, image_id: str) -> npt.NDArray[Any]:
        """Return one image's vector, (dim,); raises DataError as `select` does."""
        return np.asarray(self.select([image_id]).vectors[0])

    def to_arrow(
        self, task: str | None = None, *, columns: Sequence[str] | None = None, vectors: bool = False
    ) -> pa.Table:
        """Return a table of the images that have a vector, in the order of `embeddings`.

        Parameters
        ----------
        task
            A task of the store, of which each target becomes a column of class names, null where the image's unit
            has no label.
        columns
            Columns of the manifest beside ``image_id``, ``patient_id``, ``study_id`` and ``split``, or the name of
            one; all by default.
        vectors
            Also a column ``vector``, float32 lists; a column of the manifest of that name is called ``vector_`` then.

        Raises
        ------
        UsageError
            If the store has no such task or column, or a target is named like a column that is wanted.

        Examples
        --------
        >>> table = store.to_arrow("abnormal", columns=["anatomy"])
        >>> table.column_names
        ['image_id', 'patient_id', 'study_id', 'split', 'anatomy', 'abnormal']
        >>> table.num_rows == len(store.embeddings().image_ids)
        True
        """
        columns = [columns] if isinstance(columns, str) else columns
        manifest = self.table.take(pa.array(np.flatnonzero(self.status == VALID)))
        table = manifest if columns is None else with_ids(manifest, columns, holder=f"store {self.path}")
        if task is not None:
            table = with_labels(table, read_task(self.path, task), manifest)
        if vectors:
            table = with_vectors(table, self.embeddings(dtype=np.float32).vectors)
        return table

    def to_pandas(
        self, task: str | None = None, *, columns: Sequence[str] | None = None, vectors: bool = False
    ) -> Any:
        """Return `to_arrow` as a pandas data frame.

        Raises
        ------
        MissingDependency
            If pandas is not installed.
        UsageError
            As `to_arrow`.
        """
        if importlib.util.find_spec("pandas") is None:
            raise MissingDependency("a data frame needs pandas: pip install 'embedstore[pandas]'")
        return self.to_arrow(task, columns=columns, vectors=vectors).to_pandas()

    def content_sha256(self) -> npt.NDArray[np.uint8]:
        """Return (rows, 32) uint8: digest of each image's decoded pixels, zero for failed and pending rows."""
        content = np.zeros((self.rows, CONTENT_BYTES), dtype=np.uint8)
        for offset, part in self.offsets():
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

    def offsets(self) -> list[tuple[int, Part]]:
        """Return the first row, counted over all parts, of each part."""
        starts = np.cumsum([0, *(part.plan.rows for part in self.parts)])
        return [(int(start), part) for start, part in zip(starts, self.parts, strict=False)]

    def row_of_vector(self, image_id: str) -> int:
        """Return the row of an image that has a vector; raises DataError as `select` does."""
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
            "tasks": self.tasks,
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
        layout = StoreLayout(path).part(entry["number"], entry["revision"])
        plan, digest = read_part_plan(layout)
        if digest != entry["sha256"] or plan.identity != identity:
            raise CorruptStore(
                f"{layout.plan_file} is not the plan that store.json lists", advice=Advice.REPAIR
            )
        parts.append(open_part(layout, plan))
    return Store(path, identity, tuple(parts))


def as_store(store: Store | StrPath) -> Store:
    """Return a store that is open already as it is, and open one that is named by its folder."""
    return store if isinstance(store, Store) else open_store(store)
