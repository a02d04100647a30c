"""Safetensors files by their headers: what is inside, and whether the file is whole.

A header is read without reading a tensor (https://huggingface.co/docs/safetensors: eight bytes of
length, JSON, then the tensors' bytes), so that a shard of another tower costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import DataError

_LENGTH_BYTES = 8
_HEADER_BYTES_MAX = 100_000_000  # the format's own limit
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Shard:
    """One safetensors file.

    Parameters
    ----------
    path
        The file.
    shapes
        Tensor name -> shape.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]


def read_shard(path: Path) -> Shard:
    """Read the header of a safetensors file and check that the file has every byte that it promises.

    Raises
    ------
    DataError
        If the file is no safetensors file, a Git LFS pointer, truncated or longer than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(len(_LFS_POINTER))
        if prefix == _LFS_POINTER:
            raise DataError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
        length = int.from_bytes(prefix[:_LENGTH_BYTES], "little")
        if len(prefix) < _LENGTH_BYTES or not 2 <= length <= _HEADER_BYTES_MAX:
            raise _damaged(path, "it does not begin with a safetensors header")
        file.seek(_LENGTH_BYTES)
        payload = file.read(length)
    if len(payload) < length:
        raise _damaged(path, f"truncated inside its header, {size:,} bytes")
    entries = _parse_header(path, payload)
    end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    promised = _LENGTH_BYTES + length + end
    if size < promised:
        raise _damaged(path, f"truncated: {size:,} of {promised:,} bytes are there")
    if size > promised:
        raise _damaged(path, f"{size:,} bytes, but its header describes {promised:,}")
    return Shard(path, {name: tuple(entry["shape"]) for name, entry in entries.items()})


def _parse_header(path: Path, payload: bytes) -> dict[str, Any]:
    try:
        entries: dict[str, Any] = json.loads(payload)
        entries.pop("__metadata__", None)
        for entry in entries.values():
            _ = int(entry["data_offsets"][1]), tuple(map(int, entry["shape"])), entry["dtype"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header is not the format's JSON ({type(error).__name__})") from error
    return entries


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"weights {path} are damaged: {found}. Copy or download the file again")


def damaged_tensors(path: Path, error: Exception) -> DataError:
    """Return the error for a file whose header is sound and whose tensors could not be read."""
    return _damaged(path, str(error).partition("\n")[0])
