"""One file of another tool's features: HDF5, npz, npy, Parquet, safetensors; read block by block, never by pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, did_you_mean
from embedstore.exchange.feature_file import FeatureFile, block_rows, checked_ids, choose_array, table_shape
from embedstore.exchange.parquet_features import open_parquet
from embedstore.exchange.safetensors_features import open_safetensors

# What other tools call coordinates of patches; (N, 2) pixels of a slide.
COORDINATES = "coords"
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def open_features(path: Path, *, array: str | None = None, id_column: str | None = None) -> FeatureFile:
    """Look into a file of features; only its shapes, ids and coordinates are read.

    Parameters
    ----------
    path
        The file.
    array
        Name of the array or column with the vectors; by default the one that is called as such tools call it.
    id_column
        Name of the array or column with an id for each row; None for a file without.

    Raises
    ------
    DataError
        If it is no such file, holds objects that only pickle reads, or its shapes do not fit each other.
    """
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise DataError(
            f"{path}: {suffix} files are read by pickle, which runs whatever the file says, so they are not read. Name "
            "the HDF5 files that CLAM and TRIDENT write beside them (h5_files), or save the tensor as safetensors"
        )
    if suffix not in READERS:
        raise DataError(
            f"{path}: features must end in {', '.join(READERS)}; found {path.suffix or 'no ending'!r}"
        )
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    try:
        found = READERS[suffix](path, array, id_column)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {error}") from error
    if not found.rows or not found.dim:
        raise DataError(f"{path}: must hold at least one vector; found shape {found.rows} x {found.dim}")
    return found


def _open_hdf5(path: Path, array: str | None, id_column: str | None) -> FeatureFile:
    with h5py.File(path, "r") as file:
        found: dict[str, h5py.Dataset] = {}
        file.visititems(
            lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None
        )
        shapes = {
            name: item.shape
            for name, item in found.items()
            if item.shape and np.issubdtype(item.dtype, np.floating)
        }
        name = choose_array(path, shapes, array)
        shape = table_shape(path, name, shapes[name])
        ids = None
        if id_column is not None:
            held = found.get(id_column, found.get(f"manifest/{id_column}"))
            if held is None:
                raise _no_ids(
                    path, id_column, [other.removeprefix("manifest/") for other in found if other != name]
                )
            ids = checked_ids(path, id_column, held[...], shape[0])
        coordinates = None if COORDINATES not in found else found[COORDINATES][...]
        dtype = found[name].dtype
    whole = len(shapes[name]) == 1
    places = _checked_coordinates(path, coordinates, shape, whole=whole)
    return FeatureFile(path, *shape, dtype, ids, places, _Hdf5Blocks(path, name, shape), whole)


@dataclass(frozen=True)
class _Hdf5Blocks:
    path: Path
    name: str
    shape: tuple[int, int]

    def __call__(self) -> Iterator[npt.NDArray[Any]]:
        with h5py.File(self.path, "r") as file:
            held, step = file[self.name], block_rows(self.shape[1])
            for start in range(0, self.shape[0], step):
                stop = min(start + step, self.shape[0])
                if held.ndim == 3:
                    yield held[0, start:stop]
                else:
                    yield held[start:stop] if held.ndim == 2 else held[...][None]


def _open_npz(path: Path, array: str | None, id_column: str | None) -> FeatureFile:
    with zipfile.ZipFile(path) as archive:
        headers = {
            name.removesuffix(".npy"): _header(path, archive, name)
            for name in archive.namelist()
            if name.endswith(".npy")
        }
    shapes = {name: shape for name, (shape, _, dtype) in headers.items() if np.issubdtype(dtype, np.floating)}
    name = choose_array(path, shapes, array)
    shape = table_shape(path, name, shapes[name])
    with np.load(path, allow_pickle=False) as arrays:
        ids = None
        if id_column is not None:
            if id_column not in headers:
                raise _no_ids(path, id_column, [other for other in headers if other != name])
            ids = checked_ids(path, id_column, arrays[id_column], shape[0])
        coordinates = arrays[COORDINATES] if COORDINATES in headers else None
    blocks = _NpzBlocks(path, name, shape, headers[name][2], headers[name][1])
    whole = len(shapes[name]) == 1
    places = _checked_coordinates(path, coordinates, shape, whole=whole)
    return FeatureFile(path, *shape, headers[name][2], ids, places, blocks, whole)


def _open_npy(path: Path, array: str | None, id_column: str | None) -> FeatureFile:
    if id_column is not None or array is not None:
        raise DataError(
            f"{path}: an .npy file holds one array and no ids; `in_order` takes those of the table's rows"
        )
    held = np.load(path, mmap_mode="r", allow_pickle=False)
    if not np.issubdtype(held.dtype, np.floating):
        raise DataError(f"{path}: must hold floating-point numbers; found {held.dtype}")
    shape = table_shape(path, path.stem, held.shape)
    return FeatureFile(path, *shape, held.dtype, None, None, _NpyBlocks(path, shape), held.ndim == 1)


@dataclass(frozen=True)
class _NpyBlocks:
    path: Path
    shape: tuple[int, int]

    def __call__(self) -> Iterator[npt.NDArray[Any]]:
        held = np.load(self.path, mmap_mode="r", allow_pickle=False).reshape(self.shape)
        step = block_rows(self.shape[1])
        for start in range(0, self.shape[0], step):
            yield np.asarray(held[start : start + step])


def _header(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether it is in Fortran's order, and dtype of an array in an npz file."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise DataError(
            f"{path}: the array {name.removesuffix('.npy')!r} holds Python objects, which only pickle reads. Save it "
            "as numbers, or as text: array.astype(str)"
        )
    return shape, fortran, dtype


@dataclass(frozen=True)
class _NpzBlocks:
    path: Path
    name: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    fortran: bool

    def __call__(self) -> Iterator[npt.NDArray[Any]]:
        if self.fortran:
            with np.load(self.path, allow_pickle=False) as arrays:
                yield arrays[self.name].reshape(self.shape)
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as member:
            version = np.lib.format.read_magic(member)
            (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )(member)
            left, row_bytes = self.shape[0], self.shape[1] * self.dtype.itemsize
            while left:
                count = min(left, block_rows(self.shape[1]))
                payload = member.read(count * row_bytes)
                if len(payload) != count * row_bytes:
                    raise DataError(f"{self.path}: the array {self.name!r} ends early")
                yield np.frombuffer(payload, self.dtype).reshape(count, self.shape[1])
                left -= count


def _no_ids(path: Path, id_column: str, known: Sequence[str]) -> DataError:
    return DataError(
        f"{path}: `id_column` names {id_column!r}, which the file has not; it has {', '.join(known) or 'no other'}"
        f"{did_you_mean(id_column, known)}"
    )


def _checked_coordinates(
    path: Path, found: npt.NDArray[Any] | None, shape: tuple[int, int], *, whole: bool
) -> npt.NDArray[Any] | None:
    if found is None or whole:
        return None
    plain = found[0] if found.ndim == 3 and len(found) == 1 else found
    if plain.shape != (shape[0], 2):
        raise DataError(
            f"{path}: {COORDINATES} must have the shape ({shape[0]}, 2), a place for each vector; found {found.shape}"
        )
    return np.asarray(plain)


READERS: Mapping[str, Callable[[Path, str | None, str | None], FeatureFile]] = {
    ".h5": _open_hdf5,
    ".hdf5": _open_hdf5,
    ".npz": _open_npz,
    ".npy": _open_npy,
    ".parquet": open_parquet,
    ".safetensors": open_safetensors,
}
