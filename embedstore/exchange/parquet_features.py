"""Features in a Parquet table: a column of lists, or one column of numbers for each dimension."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedstore.errors import DataError, did_you_mean
from embedstore.exchange.feature_file import ARRAY_NAMES, FeatureFile, block_rows, checked_ids

_NUMBERED = re.compile(r"(.*?)(\d+)")


def open_parquet(path: Path, array: str | None, id_column: str | None) -> FeatureFile:
    """Look into a Parquet file; arguments and errors as `embedstore.exchange.feature_files.open_features`."""
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            columns = feature_columns(path, schema, array, id_column)
            ids = None if id_column is None else _ids(path, file, id_column)
            dim, dtype = len(columns), np.dtype(np.float32)
            if len(columns) == 1 and _is_list(schema.field(columns[0]).type):
                kind = schema.field(columns[0]).type
                dim, dtype = _list_length(path, file, columns[0], kind), _numpy_dtype(kind.value_type)
            else:
                dtype = np.result_type(*(_numpy_dtype(schema.field(name).type) for name in columns))
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error
    return FeatureFile(path, rows, dim, dtype, ids, None, _ParquetBlocks(path, tuple(columns), dim))


def feature_columns(path: Path, schema: pa.Schema, wanted: str | None, id_column: str | None) -> list[str]:
    """Return the column of lists, or the columns of numbers, that hold the vectors, in the order of the dimensions.

    Columns with one name but for the number at its end stand in the order of these numbers, whatever their order in
    the file.
    """
    known = schema.names
    if wanted is not None:
        chosen = [name for name in known if name == wanted or fnmatch.fnmatchcase(name, wanted)]
        if not chosen:
            raise DataError(
                f"{path}: `array` names {wanted!r}, which no column is called like; found {_listed(known)}"
                f"{did_you_mean(wanted, known)}"
            )
    else:
        lists = [name for name in known if _is_list(schema.field(name).type)]
        chosen = [name for name in ARRAY_NAMES if name in lists][:1] or lists
        if len(chosen) > 1:
            raise DataError(
                f"{path}: several columns of lists, {_listed(chosen)}; `array` names the one of the vectors"
            )
        chosen = chosen or _numbered(path, schema, id_column)
    if len(chosen) > 1 or not _is_list(schema.field(chosen[0]).type):
        wrong = [name for name in chosen if not _is_number(schema.field(name).type)]
        if wrong:
            raise DataError(
                f"{path}: column {wrong[0]!r} must hold numbers; found {schema.field(wrong[0]).type}"
            )
    return _in_order(chosen)


def _numbered(path: Path, schema: pa.Schema, id_column: str | None) -> list[str]:
    """Return the columns of numbers that differ in a number at the end of their names alone."""
    groups: dict[str, list[str]] = {}
    for name in schema.names:
        found = _NUMBERED.fullmatch(name)
        if found and name != id_column and _is_number(schema.field(name).type):
            groups.setdefault(found[1], []).append(name)
    several = [names for names in groups.values() if len(names) > 1]
    if len(several) != 1:
        raise DataError(
            f"{path}: which columns hold the vectors? There is no column of lists, and not one group of columns of "
            f"numbers called alike (f0, f1, ...); `array` names them, 'f*' for instance. Found {_listed(schema.names)}"
        )
    return several[0]


def _in_order(names: list[str]) -> list[str]:
    found = [_NUMBERED.fullmatch(name) for name in names]
    if len(names) == 1 or not all(found) or len({match[1] for match in found if match}) != 1:
        return names
    return sorted(names, key=lambda name: int(_NUMBERED.fullmatch(name)[2]))  # type: ignore[index]


@dataclass(frozen=True)
class _ParquetBlocks:
    path: Path
    columns: tuple[str, ...]
    dim: int

    def __call__(self) -> Iterator[npt.NDArray[Any]]:
        start = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(block_rows(self.dim), columns=list(self.columns)):
                column = batch.column(batch.schema.get_field_index(self.columns[0]))
                if len(self.columns) == 1 and _is_list(column.type):
                    yield self._of_lists(column, start)
                else:
                    by_name = [batch.column(batch.schema.get_field_index(name)) for name in self.columns]
                    yield np.column_stack([_floats(numbers) for numbers in by_name])
                start += batch.num_rows

    def _of_lists(self, column: pa.Array, start: int) -> npt.NDArray[Any]:
        """Return lists as rows; an unknown list or number is NaN."""
        known = np.asarray(pc.is_valid(column))
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), self.dim))
        if (lengths != self.dim).any():
            row = int(np.flatnonzero(lengths != self.dim)[0])
            raise DataError(
                f"{self.path}: row {start + row} of {self.columns[0]!r} has {lengths[row]} numbers, where the first "
                f"has {self.dim}"
            )
        flat = _floats(pc.list_flatten(column))
        rows = np.full((len(column), self.dim), np.nan, dtype=flat.dtype)
        rows[known] = flat.reshape(-1, self.dim)
        return rows


def _floats(column: pa.Array) -> npt.NDArray[Any]:
    if pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _ids(path: Path, file: pq.ParquetFile, name: str) -> list[str]:
    if name not in file.schema_arrow.names:
        raise DataError(
            f"{path}: `id_column` names {name!r}, which the file has not; it has {_listed(file.schema_arrow.names)}"
            f"{did_you_mean(name, file.schema_arrow.names)}"
        )
    column = file.read([name]).column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        row = int(np.flatnonzero(np.asarray(pc.is_null(column)))[0])
        raise DataError(f"{path}: {name!r}, row {row}: the id is empty; every vector needs one")
    return checked_ids(path, name, np.asarray(column.to_numpy()), file.metadata.num_rows)


def _list_length(path: Path, file: pq.ParquetFile, name: str, kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in file.iter_batches(64, columns=[name]):
        lengths = pc.drop_null(pc.list_value_length(batch.column(0)))
        if len(lengths):
            return int(lengths[0].as_py())
    raise DataError(f"{path}: column {name!r} must hold at least one list of numbers; found none")


def _is_list(kind: pa.DataType) -> bool:
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(nested and _is_number(kind.value_type))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _numpy_dtype(kind: pa.DataType) -> np.dtype[Any]:
    return np.dtype(kind.to_pandas_dtype()) if pa.types.is_floating(kind) else np.dtype(np.float64)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
