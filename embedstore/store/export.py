"""Hands a store's valid rows on: HDF5, npz or Parquet files that need nothing of this project to be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedstore.errors import UsageError
from embedstore.files import StrPath, canonical_json
from embedstore.store.reader import Embeddings, Store, as_store
from embedstore.store.tasks import read_task, task_names


def export_store(store: Store | StrPath, target: StrPath) -> int:
    """Write every valid row to `target`; the suffix chooses the format.

    Parameters
    ----------
    store
        The store, opened or by its folder.
    target
        ``*.h5``/``*.hdf5``, ``*.npz`` or ``*.parquet``; replaced if it exists, and only once complete.

    Returns
    -------
    Rows written.

    Raises
    ------
    UsageError
        For another suffix.
    CorruptStore
        If the store's bytes are not the committed ones.

    Examples
    --------
    >>> es.export_store("mura.store", "mura.parquet") == store.rows
    True
    """
    store, target = as_store(store), Path(target)
    writers: dict[str, Callable[[Store, Embeddings, Path], None]] = {
        ".h5": _write_hdf5,
        ".hdf5": _write_hdf5,
        ".npz": _write_npz,
        ".parquet": _write_parquet,
    }
    if target.suffix not in writers:
        raise UsageError(f"{target}: the suffix must be one of {', '.join(writers)}; found {target.suffix!r}")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: the folder {target.parent} does not exist")
    embeddings = store.embeddings()
    # An HDF5 file being written is unreadable after a kill: only a finished one gets the name.
    partial = target.with_name(target.name + ".partial")
    try:
        writers[target.suffix](store, embeddings, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return len(embeddings.rows)


def _records(store: Store, embeddings: Embeddings) -> pa.Table:
    return store.table.take(pa.array(embeddings.rows))


def _write_hdf5(store: Store, embeddings: Embeddings, path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["identity"] = canonical_json(store.identity.to_json()).decode()
        file.attrs["identity_sha256"] = store.identity.sha256
        file.create_dataset("vectors", data=embeddings.vectors, chunks=True)
        _write_hdf5_table(file.create_group("manifest"), _records(store, embeddings))
        for name in task_names(store.path):
            task = read_task(store.path, name)
            group = file.create_group(f"tasks/{name}")
            group.attrs["task"] = canonical_json(task.to_json()).decode()
            _write_hdf5_table(group, task.labels)


def _write_hdf5_table(group: h5py.Group, table: pa.Table) -> None:
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_string(column.type) or pa.types.is_null(column.type):
            # HDF5 has no empty cell: an unknown string is "".
            cells = ["" if cell is None else cell for cell in column.to_pylist()]
            group.create_dataset(name, data=cells, dtype=h5py.string_dtype())
        else:
            group.create_dataset(name, data=_numbers(column))


def _write_npz(store: Store, embeddings: Embeddings, path: Path) -> None:
    arrays = {"vectors": embeddings.vectors}
    table = _records(store, embeddings)
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_string(column.type) or pa.types.is_null(column.type):
            arrays[name] = np.array(
                ["" if cell is None else cell for cell in column.to_pylist()], dtype=np.str_
            )
        else:
            arrays[name] = _numbers(column)
    arrays["identity"] = np.array(canonical_json(store.identity.to_json()).decode())
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub mistakes array names for allow_pickle


def _write_parquet(store: Store, embeddings: Embeddings, path: Path) -> None:
    table = _records(store, embeddings)
    flat = pa.array(embeddings.vectors.reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, store.identity.dim)
    table = table.append_column("embedding", vectors)
    metadata = {"embedstore.identity": canonical_json(store.identity.to_json())}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a number or boolean column as NumPy; unknown cells are NaN, or -1 where all are whole."""
    if column.null_count and pa.types.is_integer(column.type):
        column = column.fill_null(-1)
    elif column.null_count and pa.types.is_boolean(column.type):
        column = column.cast(pa.int8()).fill_null(-1)
    return np.asarray(column.to_numpy())
