"""What the frozen blocks made of each picture, kept on disk: the residual stream before the first trained block.

A cache is chunks of rows with receipts, written as a store writes them: a row exists if its chunk has a receipt, so
that a kill costs the chunk at hand. One folder holds caches of several settings, each below the digest of its own.

```
<digest>/cache.json           sealed: base, preprocess, arithmetic, frozen blocks, format of a number, images and views
<digest>/c/000012             rows; of int8 the rows, then the scale of each token
<digest>/receipts/000012.json sealed: the CRC-32C of the chunk
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedstore.errors import CorruptStore, DataError, UsageError
from embedstore.files import canonical_json, make_folder_durable, sha256_bytes, write_durable
from embedstore.store.documents import read_document, write_document
from embedstore.store.layout import CHUNK_BYTES, MAX_CHUNK_ROWS, crc32c

FORMATS = ("float16", "int8")
FORMAT_VERSION = 1
PLAIN_VIEW = -1
_LARGEST_INT8 = 127
_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """What a cache holds.

    Parameters
    ----------
    question
        What its numbers depend on, plain JSON values: base, preprocess, arithmetic, frozen blocks, augmentation, seed.
    image_ids
        The images that have rows, in order, by view: `PLAIN_VIEW` for pictures as they are.
    content_sha256
        Digest of the pixels of all images, so that a cache of others is another one.
    tokens, dim
        Shape of a row.
    format
        ``float16``, or ``int8`` with one float32 scale for each token.
    """

    question: Mapping[str, Any]
    image_ids: Mapping[int, Sequence[str]]
    content_sha256: str
    tokens: int
    dim: int
    format: str = "float16"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        numbers = self.tokens * self.dim
        return 2 * numbers if self.format == "float16" else numbers + 4 * self.tokens

    @property
    def rows(self) -> int:
        """Rows of all views."""
        return sum(map(len, self.image_ids.values()))

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk, as in a store; a chunk holds rows of one view."""
        return min(max(CHUNK_BYTES // self.row_bytes, 1), MAX_CHUNK_ROWS)

    def to_json(self) -> dict[str, Any]:
        """Return what decides a cache, plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "question": dict(self.question),
            "images": {
                str(view): sha256_bytes(canonical_json(list(ids))) for view, ids in self.image_ids.items()
            },
            "rows": {str(view): len(ids) for view, ids in self.image_ids.items()},
            "content_sha256": self.content_sha256,
            "row_shape": [self.tokens, self.dim],
            "format": self.format,
            "chunk_rows": self.chunk_rows,
        }

    @property
    def name(self) -> str:
        """Name of its folder."""
        return sha256_bytes(canonical_json(self.to_json()))[:_DIGITS]


@dataclass(frozen=True)
class CacheChunk:
    """A run of rows of one view: its number, its view, and which of the view's images it holds."""

    number: int
    view: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Rows of it."""
        return self.stop - self.start


@dataclass
class PrefixCache:
    """A cache on disk; `open_cache` makes one.

    Parameters
    ----------
    folder
        Its own folder.
    spec
        What it holds.
    chunks
        Its chunks, in order.
    """

    folder: Path
    spec: CacheSpec
    chunks: tuple[CacheChunk, ...]
    _open: dict[int, npt.NDArray[Any]] = field(default_factory=dict, repr=False)

    def missing(self) -> list[CacheChunk]:
        """Return the chunks without a receipt."""
        there = {path.stem for path in (self.folder / "receipts").glob("*.json")}
        return [chunk for chunk in self.chunks if f"{chunk.number:06d}" not in there]

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to be written."""
        return sum(chunk.rows for chunk in self.missing()) * self.spec.row_bytes

    def write(self, chunk: CacheChunk, residual: torch.Tensor) -> None:
        """Keep (rows, tokens, dim) float32 of a chunk, durably; it exists when this returns.

        Raises
        ------
        DataError
            If a number is beyond float16, or is none.
        """
        payload = _packed(residual, self.spec.format)
        write_durable(self._path(chunk.number), payload, label="prefix")
        receipt = {
            "chunk": chunk.number,
            "rows": chunk.rows,
            "crc32c": crc32c(np.frombuffer(payload, np.uint8)),
        }
        write_document(self._receipt(chunk.number), receipt, label="prefix-receipt")

    def read(self, view: int, places: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return (n, tokens, dim) float32 of images by their place in a view.

        Raises
        ------
        CorruptStore
            If a chunk's bytes are not those that were written; each is checked when it is first read.
        """
        tokens, dim, size = self.spec.tokens, self.spec.dim, self.spec.chunk_rows
        first = next(chunk.number for chunk in self.chunks if chunk.view == view)
        found = np.empty((len(places), tokens, dim), np.float32)
        for at, place in enumerate(places.tolist()):
            number, row = first + place // size, place % size
            payload, rows = self._opened(number), self.chunks[number].rows
            if self.spec.format == "float16":
                found[at] = payload.view("<f2").reshape(rows, tokens, dim)[row]
                continue
            whole = rows * tokens * dim
            scales = payload[whole:].view("<f4").reshape(rows, tokens, 1)[row]
            found[at] = payload[:whole].view(np.int8).reshape(rows, tokens, dim)[row] * scales
        return torch.from_numpy(found)

    def _opened(self, number: int) -> npt.NDArray[Any]:
        if number not in self._open:
            path = self._path(number)
            receipt, _ = read_document(self._receipt(number))
            try:
                payload: npt.NDArray[Any] = np.memmap(path, np.uint8, mode="r")
            except (OSError, ValueError) as error:
                raise CorruptStore(f"{path} cannot be read ({error}); remove {self.folder}") from error
            if (
                len(payload) != self.chunks[number].rows * self.spec.row_bytes
                or crc32c(payload) != receipt["crc32c"]
            ):
                raise CorruptStore(
                    f"{path} is not what was written; remove {self.folder}, which is made again"
                )
            self._open[number] = payload
        return self._open[number]

    def _path(self, number: int) -> Path:
        return self.folder / "c" / f"{number:06d}"

    def _receipt(self, number: int) -> Path:
        return self.folder / "receipts" / f"{number:06d}.json"


def open_cache(root: Path, spec: CacheSpec) -> PrefixCache:
    """Open the cache of a specification below `root`, and begin it if there is none.

    Raises
    ------
    UsageError
        For another format.
    CorruptStore
        If its document was edited.
    """
    if spec.format not in FORMATS:
        raise UsageError(f"`cache` must be one of {', '.join(FORMATS)}; found {spec.format!r}")
    folder = root / spec.name
    for part in ("c", "receipts"):
        make_folder_durable(folder / part)
    document = folder / "cache.json"
    if document.is_file():
        read_document(document)
    else:
        write_document(document, json.loads(canonical_json(spec.to_json())), label="prefix-cache")
    return PrefixCache(folder, spec, tuple(_chunks(spec)))


def _chunks(spec: CacheSpec) -> list[CacheChunk]:
    found: list[CacheChunk] = []
    for view, ids in spec.image_ids.items():
        for start in range(0, len(ids), spec.chunk_rows):
            stop = min(start + spec.chunk_rows, len(ids))
            found.append(CacheChunk(len(found), view, start, stop))
    return found


def _packed(residual: torch.Tensor, kind: str) -> bytes:
    rows = residual.detach().float().cpu()
    if not bool(torch.isfinite(rows).all()):
        raise DataError("the frozen blocks gave a number that is none; the base's checkpoint may be damaged")
    if kind == "int8":
        scales = (rows.abs().amax(dim=2, keepdim=True) / _LARGEST_INT8).clamp(
            min=torch.finfo(torch.float32).tiny
        )
        whole = (rows / scales).round().to(torch.int8)
        return whole.numpy().tobytes() + scales.numpy().astype("<f4").tobytes()
    largest = float(rows.abs().max())
    if largest > torch.finfo(torch.float16).max:
        raise DataError(
            f"the residual stream holds {largest:.3g}, which float16 does not; use `cache='int8'`, or none"
        )
    return rows.numpy().astype("<f2").tobytes()
