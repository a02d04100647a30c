"""Synthetic crops around level points: tokens that say where the true point is, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedstore.identity import Identity
from embedstore.lumbar.crop_rule import LOCALISED, CropRule
from embedstore.lumbar.level_points import LevelPoints
from embedstore.lumbar.looks import Looks
from embedstore.slices.planes import SlicePlanes
from tests.heads.localising.spines import FEATURES, GRID, IDENTITY

CELLS, SIZE_MM = GRID, 50.0
_ORIENTATION = {
    "canal": (0, 1, 0, 0, 0, -1),
    "foramen": (0, 1, 0, 0, 0, -1),
    "subarticular": (1, 0, 0, 0, 1, 0),
}
_KIND = {"canal": "canal_sagittal_t2", "foramen": "foramen_sagittal_t1", "subarticular": "axial_t2"}


def tokens_that_show(at_mm: np.ndarray, *, noise: float, seed: int) -> np.ndarray:
    """Return (n, CELLS, CELLS, FEATURES) tokens of crops whose point lies (n, 2) mm from the middle.

    A token holds how near it is to the point, and the way to it as far as it is near.
    """
    size = SIZE_MM / CELLS
    place = (np.arange(CELLS) - (CELLS - 1) / 2) * size
    across = at_mm[:, None, None, 0] - place[None, None]
    down = at_mm[:, None, None, 1] - place[None, :, None]
    near = np.exp(-((across**2 + down**2) / (2 * size**2)))
    rest = np.zeros((FEATURES - 3, *near.shape))
    tokens = np.stack([near, near * across / size, near * down / size, *rest], axis=-1)
    return (tokens + np.random.default_rng(seed).normal(0.0, noise, tokens.shape)).astype(np.float16)


@dataclass
class NearCrops:
    """A look at every point of `found`; a `heads.localising.look_again.LookSource`.

    Right recesses are laid onto the left, as crops are.
    """

    found: LevelPoints
    true: dict[tuple[str, str, str], np.ndarray]
    noise: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = [name.rpartition("_")[2] for name in self.found.structures]
        orientations = np.array([_ORIENTATION[kind] for kind in kinds], float)
        mirrored = self.found.structures == "right_subarticular"
        orientations[mirrored, :3] *= -1
        size = SIZE_MM / CELLS
        half = (CELLS - 1) / 2 * size
        corners = self.found.xyz_mm - half * (orientations[:, :3] + orientations[:, 3:])
        n = len(kinds)
        self.looks = Looks(
            np.arange(n),
            np.array([_KIND[kind] for kind in kinds], object),
            np.array([f"series of {kind}" for kind in kinds], object),
            SlicePlanes(orientations, corners, np.full((n, 2), size), np.full((n, 2), float(CELLS))),
        )
        keys = zip(self.found.study_ids, self.found.structures, self.found.levels, strict=True)
        offsets = np.array([self.true[key] for key in keys]) - self.found.xyz_mm
        self.tokens = tokens_that_show(self.looks.in_plane_mm(offsets), noise=self.noise, seed=self.seed)

    @property
    def rule(self) -> CropRule:
        return CropRule(SIZE_MM, 0, LOCALISED, self.found.digest)

    @property
    def identity(self) -> Identity:
        return IDENTITY.with_crop(self.rule.to_json())

    def read(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), 64):
            some = rows[start : start + 64]
            yield some, self.tokens[some]
