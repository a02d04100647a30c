"""Tiny image folders for tests of whole extractions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from embedstore.datasets.base import Collection
from embedstore.manifest import Manifest
from tests.stores import manifest_of


def write_pictures(folder: Path, numbers: range) -> None:
    """Write ``imageN.png``: 8 x 8 grey noise seeded by its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(pixels_of(number)).save(folder / f"image{number}.png")


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)


def collection_of(folder: Path, count: int) -> Collection:
    """Return the collection of `count` pictures in `folder`."""
    return Collection("test", folder, manifest_of(count))


def expected_vectors(count: int) -> np.ndarray:
    """Work out by hand what `MeanEncoder` makes of 8 x 8 pictures, which preprocessing leaves alone."""
    rows = []
    for number in range(count):
        pixels = pixels_of(number).astype(np.float32)
        rows.append([pixels.mean(), pixels[0, 0], pixels[-1, -1], (pixels > 127).sum() / 64])
    return np.array(rows, np.float32)


def expected_tokens(count: int) -> np.ndarray:
    """Work out by hand the tokens that `TokenEncoder` makes of the same pictures."""
    rows = []
    for number in range(count):
        pixels = pixels_of(number).astype(np.float32)
        rows.append([[half.mean(), half[0, 0], half[-1, -1]] for half in (pixels[:4], pixels[4:])])
    return np.array(rows, np.float32)


def with_manifest(collection: Collection, manifest: Manifest) -> Collection:
    return Collection(collection.dataset, collection.root, manifest, collection.tasks)
