"""Features in a safetensors file: a table of vectors, or a tensor for each image under its id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from embedstore.errors import DataError
from embedstore.exchange.feature_file import ARRAY_NAMES, FeatureFile, block_rows, choose_array, table_shape

# NumPy has no number of this kind, torch has.
_WIDER = "BF16"
_TENSORS_AT_ONCE = 1024
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, _WIDER: np.float32}


def open_safetensors(path: Path, array: str | None, id_column: str | None) -> FeatureFile:
    """Look into a safetensors file; arguments and errors as `embedstore.exchange.feature_files.open_features`.

    The format has no text. Where every tensor is a vector of one length, its name is the image's id.
    """
    if id_column is not None:
        raise DataError(
            f"{path}: `id_column` names {id_column!r}, but safetensors files hold numbers only. Name the tensors by "
            "their ids, one for each image, or say that rows stand in the order of the table (`in_order=True`)"
        )
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            kinds = {name: piece.get_dtype() for name, piece in slices.items()}
            shapes = {
                name: tuple(piece.get_shape()) for name, piece in slices.items() if kinds[name] in _DTYPES
            }
    except SafetensorError as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}") from error
    single = array is None and not set(ARRAY_NAMES) & shapes.keys()
    if single and shapes and all(len(shape) == 1 for shape in shapes.values()):
        return _tensor_for_each_id(path, shapes, kinds)
    name = choose_array(path, shapes, array)
    shape = table_shape(path, name, shapes[name])
    blocks = _TableBlocks(path, name, shape, shapes[name], kinds[name] == _WIDER)
    return FeatureFile(
        path, *shape, np.dtype(_DTYPES[kinds[name]]), None, None, blocks, len(shapes[name]) == 1
    )


def _tensor_for_each_id(path: Path, shapes: dict[str, tuple[int, ...]], kinds: dict[str, str]) -> FeatureFile:
    lengths = {shape[0] for shape in shapes.values()}
    if len(lengths) > 1:
        raise DataError(f"{path}: its vectors must have one length; found {sorted(lengths)[:5]}")
    ids = sorted(shapes)
    wider = any(kinds[name] == _WIDER for name in ids)
    dtype = np.result_type(*(_DTYPES[kinds[name]] for name in ids))
    return FeatureFile(
        path, len(ids), lengths.pop(), dtype, ids, None, _TensorBlocks(path, tuple(ids), wider)
    )


@dataclass(frozen=True)
class _TableBlocks:
    path: Path
    name: str
    shape: tuple[int, int]
    stored: tuple[int, ...]
    wider: bool

    def __call__(self) -> Iterator[npt.NDArray[Any]]:
        with safe_open(self.path, framework="pt" if self.wider else "np") as file:
            held, step = file.get_slice(self.name), block_rows(self.shape[1])
            for start in range(0, self.shape[0], step):
                stop = min(start + step, self.shape[0])
                if len(self.stored) == 1:
                    yield _as_numpy(held[:])[None]
                else:
                    yield _as_numpy(held[0, start:stop] if len(self.stored) == 3 else held[start:stop])


@dataclass(frozen=True)
class _TensorBlocks:
    path: Path
    ids: tuple[str, ...]
    wider: bool

    def __call__(self) -> Iterator[npt.NDArray[Any]]:
        with safe_open(self.path, framework="pt" if self.wider else "np") as file:
            for start in range(0, len(self.ids), _TENSORS_AT_ONCE):
                names = self.ids[start : start + _TENSORS_AT_ONCE]
                yield np.stack([_as_numpy(file.get_tensor(name)) for name in names])


def _as_numpy(tensor: Any) -> npt.NDArray[Any]:
    return tensor if isinstance(tensor, np.ndarray) else np.asarray(tensor.float().numpy())
