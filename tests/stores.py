"""Small stores whose every byte is known, and a fake encoder that can be worked out by hand."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedstore.encoders.base import EncoderDefaults, OneByOne
from embedstore.identity import ArraySpec, Identity
from embedstore.images.preprocess import PreprocessSpec
from embedstore.manifest import Manifest, manifest_from_columns
from embedstore.store.commit import ChunkResult
from embedstore.store.layout import PartPlan
from embedstore.store.writer import open_writer

DIM = 4


class MeanEncoder(EncoderDefaults):
    """Encodes a picture as its mean, its first pixel, its last pixel, and its number of bright pixels / 64."""

    name = "mean"

    def __init__(
        self,
        *,
        preset: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        square_pixels: bool = True,
    ) -> None:
        self.preprocess = PreprocessSpec(preset or "pad", size_px=8, square_pixels=square_pixels)
        self.device = "cpu"
        self.loads = 0

    @property
    def identity(self) -> Identity:
        return Identity("mean", "1", "none", self.preprocess.to_json(), "none", "float32", DIM)

    def load(self) -> None:
        self.loads += 1

    def encode(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        grey = pixels if pixels.ndim == 3 else pixels[..., 0]
        flat = grey.reshape(len(grey), math.prod(grey.shape[1:])).astype(np.float32)
        bright = (flat > 127).sum(axis=1) / np.float32(64)
        return np.stack([flat.mean(axis=1), flat[:, 0], flat[:, -1], bright], axis=1).astype(np.float32)


class TokenEncoder(MeanEncoder):
    """Gives a grid of tokens as well: of the upper and the lower half, the mean, the first and the last pixel."""

    name = "token-mean"

    @property
    def identity(self) -> Identity:
        return replace(super().identity, encoder=self.name, arrays={TOKENS: TOKEN_SPEC})

    def open_stream(self) -> OneByOne:
        return OneByOne(self.encode, further=self.encode_tokens)

    def encode_tokens(self, pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        grey = pixels if pixels.ndim == 3 else pixels[..., 0]
        halves = grey.reshape(len(grey), 2, -1).astype(np.float32)
        return {TOKENS: np.stack([halves.mean(axis=2), halves[..., 0], halves[..., -1]], axis=2)}


TOKENS = "tokens"
TOKEN_SPEC = ArraySpec(
    (2, 3), ("token", "token_feature"), "mean, first and last pixel of the upper and the lower half"
)
IDENTITY = MeanEncoder().identity
TOKEN_IDENTITY = TokenEncoder().identity


def manifest_of(count: int, *, first: int = 0) -> Manifest:
    """Return a manifest of `count` images; two to a study, four to a patient."""
    numbers = range(first, first + count)
    return manifest_from_columns(
        {
            "image_id": [f"image{number}" for number in numbers],
            "path": [f"image{number}.png" for number in numbers],
            "patient_id": [f"patient{number // 4}" for number in numbers],
            "study_id": [f"study{number // 2}" for number in numbers],
            "split": ["train" if number % 8 < 4 else "valid" for number in numbers],
        },
        source="test",
    )


def vectors_of(start: int, stop: int, *, dim: int = DIM) -> npt.NDArray[np.float32]:
    """Return vectors that float16 holds exactly: row i is i, i + 1/4, i + 2/4, ..."""
    rows = np.arange(start, stop, dtype=np.float32)[:, None]
    return rows + np.arange(dim, dtype=np.float32) / 4


def content_of(start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Return the SHA-256 of each row's number as text."""
    digests = [hashlib.sha256(str(row).encode()).digest() for row in range(start, stop)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def tokens_of(start: int, stop: int) -> dict[str, npt.NDArray[np.float32]]:
    """Return the further arrays of rows of `TOKEN_IDENTITY`: row i counts down from -i in halves, token by token."""
    rows = np.arange(start, stop, dtype=np.float32)[:, None, None]
    return {TOKENS: -rows - np.arange(6, dtype=np.float32).reshape(2, 3) / 2}


def make_store(
    root: Path,
    *,
    rows: int = 20,
    chunk_rows: int = 8,
    dtype: str = "float16",
    chunks: tuple[int, ...] | None = None,
    failures: dict[int, tuple[object, str]] | None = None,
    identity: Identity = IDENTITY,
) -> PartPlan:
    """Write a store of one part with known vectors; `chunks` names the ones to finish (all by default)."""
    with open_writer(root, identity, say=lambda line: None) as writer:
        plan = writer.plan_part(
            manifest_of(rows), dataset="test", data_root="images", chunk_rows=chunk_rows, dtype=dtype
        )
        for chunk in range(plan.chunks) if chunks is None else chunks:
            start, stop = plan.bounds(chunk)
            inside = {row: failure for row, failure in (failures or {}).items() if start <= row < stop}
            writer.commit(plan, chunk, known_result(identity, start, stop, inside))
    return plan


def known_result(
    identity: Identity, start: int, stop: int, failures: dict[int, tuple[object, str]] | None = None
) -> ChunkResult:
    """Return what an encoder would have made of images `start` to `stop`; with tokens, if the identity has them."""
    return ChunkResult(
        vectors_of(start, stop),
        content_of(start, stop),
        failures or {},  # type: ignore[arg-type]
        further=tokens_of(start, stop) if identity.arrays else {},
    )


_CIRCUMSTANCES = {"created", "root", "sources", "seconds", "finished", "host", "device", "versions", "sha256"}


def store_bytes(root: Path) -> dict[str, bytes]:
    """Return every file of a store; timings, hosts and the digests over them are taken out of documents."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_dir() or path.name == "writer.lock":
            continue
        payload = path.read_bytes()
        if path.suffix == ".json" and path.name != "zarr.json":
            payload = json.dumps(_without(json.loads(payload), _CIRCUMSTANCES), sort_keys=True).encode()
        found[str(path.relative_to(root))] = payload
    return found


def _without(document: object, keys: set[str]) -> object:
    if isinstance(document, dict):
        return {key: _without(entry, keys) for key, entry in document.items() if key not in keys}
    if isinstance(document, list):
        return [_without(entry, keys) for entry in document]
    return document
