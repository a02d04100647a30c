"""The rows of a store that are exported: which they are, their table, and their vectors block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedstore.errors import DataError
from embedstore.exchange.column_names import exported_name, label_name
from embedstore.files import canonical_json
from embedstore.store.reader import FAILED, PENDING, VALID, Store
from embedstore.store.tasks import read_task, task_names, with_labels

_PLACEHOLDER = "\0"


@dataclass(frozen=True)
class ExportRows:
    """What is written of a store, whatever the format.

    Parameters
    ----------
    store
        The store.
    rows
        (n,) int64, ascending: the rows of the store that are written.
    zero
        Rows left out because their vector is zero.
    dtype
        Of the vectors in the file.
    normalise
        Whether vectors are divided by their length.
    with_labels
        Whether each target of each task becomes a column.
    beside
        Further columns of the file -> their cells; a user's column of such a name gets a ``_`` behind it.
    reserved
        Names that a reader keeps for itself: a user's column of such a name gets a ``_``, too.
    """

    store: Store
    rows: npt.NDArray[np.int64]
    zero: int
    dtype: np.dtype[Any]
    normalise: bool
    with_labels: bool
    beside: Mapping[str, pa.Array] = field(default_factory=dict)
    reserved: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the vectors."""
        return len(self.rows), self.store.identity.dim

    @cached_property
    def manifest(self) -> pa.Table:
        """The manifest's rows under their own names."""
        return self.store.table.take(pa.array(self.rows))

    @cached_property
    def labels(self) -> dict[str, tuple[str, str]]:
        """Column -> task and target."""
        names = task_names(self.store.path) if self.with_labels else []
        tasks = [read_task(self.store.path, name) for name in names]
        return {
            label_name(task.name, target): (task.name, target) for task in tasks for target in task.targets
        }

    @cached_property
    def table(self) -> pa.Table:
        """Manifest and labels under the names of the file; cells are text, numbers or booleans."""
        manifest = self.manifest
        columns = {exported_name(name): _plain(manifest.column(name)) for name in manifest.column_names}
        bare = pa.table({_PLACEHOLDER: pa.nulls(len(self.rows))})
        for name in dict.fromkeys(task for task, _ in self.labels.values()):
            task = read_task(self.store.path, name)
            labelled = with_labels(bare, task, manifest)
            for target in task.targets:
                columns[label_name(name, target)] = labelled.column(target).cast(pa.string())
        ours = {*self.beside, *self.reserved}
        names = {name: f"{name}_" if name.rstrip("_") in ours else name for name in columns}
        return pa.table({names[name]: column for name, column in columns.items()} | dict(self.beside))

    @property
    def identity(self) -> str:
        """The store's identity as JSON."""
        return canonical_json(self.store.identity.to_json()).decode()

    @property
    def document(self) -> str:
        """What the file says of itself, as JSON: original names, what was left out, what was done."""
        status = self.store.status
        return json.dumps(
            {
                "store": self.store.path.absolute().name,
                "rows": len(self.rows),
                "left_out": {
                    "failed": int((status == FAILED).sum()),
                    "pending": int((status == PENDING).sum()),
                    "zero": self.zero,
                },
                "normalised": self.normalise,
                "columns": {exported_name(name): name for name in self.manifest.column_names},
                "labels": {
                    name: {"task": task, "target": target} for name, (task, target) in self.labels.items()
                },
            },
            ensure_ascii=False,
        )

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the vectors in order, (some rows, dim) each, checked against the receipts.

        Raises
        ------
        DataError
            If a value does not fit the wanted dtype.
        CorruptStore
            If a chunk's bytes are not the committed ones.
        """
        for offset, found in chunks_of(self.store):
            start, stop = np.searchsorted(self.rows, [offset, offset + len(found)])
            if start == stop:
                continue
            vectors = found[self.rows[start:stop] - offset]
            if self.normalise:
                vectors = unit_vectors(vectors)
            with np.errstate(over="ignore"):
                block = np.ascontiguousarray(vectors, dtype=self.dtype)
            if not np.isfinite(block).all():
                raise DataError(
                    f"store {self.store.path} holds values that {self.dtype} cannot, {np.abs(vectors).max():.6g} for "
                    "instance; float32 holds them"
                )
            yield block


def choose_rows(
    store: Store, *, keep_zero: bool, dtype: str, normalise: bool, with_labels: bool
) -> ExportRows:
    """Return the valid rows of a store, those whose vector is zero only if they are asked for."""
    valid = np.flatnonzero(store.status == VALID)
    zero = np.array([], np.int64) if keep_zero else zero_rows(store)
    kept = np.setdiff1d(valid, zero)
    return ExportRows(store, kept, len(zero), np.dtype(dtype), normalise, with_labels)


def zero_rows(store: Store) -> npt.NDArray[np.int64]:
    """Return the rows whose vector is zero, (n,) int64: a constant image under ``hog``, for instance."""
    found = [offset + np.flatnonzero(~rows.any(axis=1)) for offset, rows in chunks_of(store)]
    return np.concatenate([np.zeros(0, np.int64), *found])


def chunks_of(store: Store) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the first row, counted over all parts, and the rows of each finished chunk; failed rows are NaN."""
    for offset, part in store.offsets():
        for chunk in sorted(part.receipts):
            yield offset + part.receipts[chunk].start, part.read_chunk(chunk)


def unit_vectors(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return (n, dim) vectors divided by their length; a zero vector stays zero."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0, lengths, 1))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text, numbers or booleans, which every format has."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_float16(kind):
        # Few readers know half floats.
        return column.cast(pa.float32())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        cells = column.to_pylist()
        return pa.chunked_array(
            [[None if cell is None else json.dumps(cell, ensure_ascii=False, default=str) for cell in cells]],
            pa.string(),
        )
    return column.cast(pa.string())
