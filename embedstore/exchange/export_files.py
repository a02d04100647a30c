"""Writes exported rows as HDF5, npz, Parquet or CSV, without holding all vectors in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from embedstore.errors import DataError
from embedstore.exchange.column_names import exported_name
from embedstore.exchange.export_rows import ExportRows
from embedstore.files import canonical_json
from embedstore.store.tasks import read_task, task_names

_ROW_GROUP_BYTES = 32 * 2**20
# NumPy gives every cell of a column of text the room of its longest.
_MOST_TEXT_BYTES = 2**30


def write_hdf5(rows: ExportRows, path: Path) -> None:
    """Write groups ``manifest`` and ``tasks`` beside contiguous ``vectors``, with dimensions named as netCDF does."""
    # The format of 2008: attributes may be longer than 64 KiB, which a table of many columns needs.
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        file.attrs["identity"] = rows.identity
        file.attrs["identity_sha256"] = rows.store.identity.sha256
        file.attrs["export"] = rows.document
        for name, length in zip(("row", "feature"), rows.shape, strict=True):
            file.create_dataset(name, data=np.arange(length)).make_scale(name)
        vectors = file.create_dataset("vectors", shape=rows.shape, dtype=rows.dtype)
        at = 0
        for block in rows.blocks():
            vectors[at : at + len(block)] = block
            at += len(block)
        _attach(vectors, file["row"], file["feature"])
        group = file.create_group("manifest")
        for name in rows.table.column_names:
            _attach(_write_column(group, name, rows.table.column(name)), file["row"])
        for name in task_names(rows.store.path):
            task = read_task(rows.store.path, name)
            group = file.create_group(f"tasks/{name}")
            group.attrs["task"] = canonical_json(task.to_json()).decode()
            for column in task.labels.column_names:
                _write_column(group, exported_name(column), task.labels.column(column))


def write_npz(rows: ExportRows, path: Path) -> None:
    """Write an array ``vectors`` and one for each column, with ``identity`` and ``export`` as JSON text."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            header = {
                "descr": np.lib.format.dtype_to_descr(rows.dtype),
                "fortran_order": False,
                "shape": rows.shape,
            }
            np.lib.format.write_array_header_2_0(member, header)
            for block in rows.blocks():
                member.write(block.data)
        arrays = {name: _array(name, rows.table.column(name)) for name in rows.table.column_names}
        arrays |= {"identity": np.array(rows.identity), "export": np.array(rows.document)}
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_parquet(rows: ExportRows, path: Path) -> None:
    """Write the table with a column ``embedding``, fixed-size lists; identity and names are metadata of the file."""
    dim = rows.store.identity.dim
    kind = pa.list_(pa.from_numpy_dtype(rows.dtype), dim)
    schema = rows.table.schema.append(pa.field("embedding", kind)).with_metadata(
        {"embedstore.identity": rows.identity, "embedstore.export": rows.document}
    )
    group = max(1, _ROW_GROUP_BYTES // (dim * rows.dtype.itemsize))
    with pq.ParquetWriter(path, schema) as writer:
        for start, vectors in _gathered(rows.blocks(), group):
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
            piece = rows.table.slice(start, len(vectors)).append_column("embedding", column)
            writer.write_table(piece.cast(schema), row_group_size=group)


def write_csv(rows: ExportRows, path: Path) -> None:
    """Write everything but the vectors as comma-separated UTF-8."""
    pa.csv.write_csv(rows.table, path)


WRITERS: dict[str, Callable[[ExportRows, Path], None]] = {
    ".h5": write_hdf5,
    ".hdf5": write_hdf5,
    ".npz": write_npz,
    ".parquet": write_parquet,
    ".csv": write_csv,
}


def _attach(dataset: h5py.Dataset, *scales: h5py.Dataset) -> None:
    for axis, scale in zip(dataset.dims, scales, strict=True):
        axis.attach_scale(scale)


def _write_column(group: h5py.Group, name: str, column: pa.ChunkedArray) -> h5py.Dataset:
    if pa.types.is_string(column.type):
        return group.create_dataset(name, data=_texts(name, column), dtype=h5py.string_dtype())
    cells = _numbers(column)
    # An enumeration is what HDF5 makes of booleans, and few readers know it.
    return group.create_dataset(name, data=cells.astype(np.int8) if cells.dtype == bool else cells)


def _array(name: str, column: pa.ChunkedArray) -> npt.NDArray[Any]:
    if not pa.types.is_string(column.type):
        return _numbers(column)
    texts = _texts(name, column)
    room = 4 * len(texts) * max(map(len, texts), default=0)
    if room > _MOST_TEXT_BYTES:
        raise DataError(
            f"column {name!r} holds texts of up to {max(map(len, texts)):,} characters, which make {room / 2**30:.1f} "
            "GiB of an npz file; Parquet and HDF5 hold them as they are"
        )
    return np.array(texts, dtype=np.str_)


def _texts(name: str, column: pa.ChunkedArray) -> list[str]:
    """Return a column of text; HDF5 and NumPy have no empty cell, so an unknown one is ""."""
    texts = column.fill_null("").to_pylist()
    if pc.any(pc.match_substring(column, "\0")).as_py():
        row = next(row for row, text in enumerate(texts) if "\0" in text)
        raise DataError(
            f"column {name!r}, row {row}: neither HDF5 nor npz can hold the character NUL in a text; Parquet can"
        )
    return [str(text) for text in texts]


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of numbers or booleans; an unknown number is NaN, an unknown boolean -1."""
    if column.null_count and pa.types.is_boolean(column.type):
        column = column.cast(pa.int8()).fill_null(-1)
    elif column.null_count and pa.types.is_integer(column.type):
        # No whole number could stand for "unknown" that is no value of a user's.
        column = column.cast(pa.float64(), safe=False)
    return np.asarray(column.to_numpy())


def _gathered(blocks: Iterator[npt.NDArray[Any]], most: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield first row and rows of blocks joined to at least `most` rows, the last ones aside."""
    start, waiting = 0, []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= most:
            joined = np.concatenate(waiting)
            yield start, joined
            start, waiting = start + len(joined), []
    if waiting:
        yield start, np.concatenate(waiting)
