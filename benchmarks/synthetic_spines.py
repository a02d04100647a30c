"""Token grids of spines, 32 x 32 tokens of 64 numbers as of a vision transformer, drawn when they are read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.identity import ArraySpec, Identity
from embedstore.images.preprocess import PreprocessSpec
from embedstore.lumbar.level_points import STRUCTURES, LevelPoints, points_from_rows
from embedstore.lumbar.levels import LEVELS
from embedstore.lumbar.series_grid import SeriesGrid, StudyGrids
from embedstore.slices.planes import SlicePlanes
from embedstore.tokens.grid import GRID_DIMENSIONS, TOKENS

GRID, FEATURES, TOKEN_MM = 32, 64, 9.4
_SLICE_MM = 4.4
_SHOWN = 5  # features that know of discs; the others are noise
_NOISE_SLICES = 64
_OFFSETS_MM = np.array([[0.0, 0, 0], [18, -3, 5], [-18, -3, 5], [8, -4, 0], [-8, -4, 0]])


class SyntheticSpines:
    """A `heads.localising.cross_fit.GridSource` of `studies` patients with `slices` T1 and as many T2 slices each.

    Parameters
    ----------
    drawn_s
        Seconds spent on drawing so far, which are not the localiser's.
    """

    def __init__(self, studies: int, *, slices: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.slices = slices
        self.drawn_s = 0.0
        self.noise = chance.normal(0.0, 1.0, (_NOISE_SLICES, GRID, GRID, FEATURES)).astype(np.float16)
        self.patients = {f"study{number}": f"patient{number}" for number in range(studies)}
        size = chance.normal(1.0, 0.05, studies)
        place = -34.0 * (np.arange(5) - 2)
        z = size[:, None] * place + chance.normal(0.0, 15.0, (studies, 1))
        y = 20.0 + 4.0 * np.cos(np.arange(5) - 2) + chance.normal(0.0, 5.0, (studies, 1))
        canals = np.stack([np.zeros_like(z), y, z], axis=-1)
        self.canals = dict(zip(self.patients, canals, strict=True))
        spec = ArraySpec((GRID, GRID, FEATURES), GRID_DIMENSIONS, "synthetic token")
        self.identity = Identity(
            "synthetic", "1", "none", PreprocessSpec().to_json(), "none", "float32", 4, arrays={TOKENS: spec}
        )

    @property
    def points(self) -> LevelPoints:
        """Where the discs were drawn."""
        rows = [
            {
                "study_id": study,
                "structure": structure,
                "level": level,
                "xyz_mm": canal[number] + offset,
                "series_id": "",
                "confidence": np.nan,
                "unsure": False,
            }
            for study, canal in self.canals.items()
            for structure, offset in zip(STRUCTURES, _OFFSETS_MM, strict=True)
            for number, level in enumerate(LEVELS)
        ]
        return points_from_rows(rows, origin="oracle", digest="synthetic", left_out={})

    def read(self, study_ids: Sequence[str]) -> Iterator[StudyGrids]:
        """Yield the grids of studies."""
        for study in study_ids:
            started = time.perf_counter()
            grids = tuple(self._draw(study, kind) for kind in ("T2", "T1"))
            self.drawn_s += time.perf_counter() - started
            yield StudyGrids(study, grids)

    def _draw(self, study: str, kind: str) -> SeriesGrid:
        half = (GRID - 1) / 2 * TOKEN_MM
        x = (np.arange(self.slices) - (self.slices - 1) / 2) * _SLICE_MM
        n = len(x)
        planes = SlicePlanes(
            np.tile([0.0, 1, 0, 0, 0, -1], (n, 1)),
            np.stack([x, np.full(n, -half + 10), np.full(n, half)], axis=1),
            np.full((n, 2), TOKEN_MM),
            np.full((n, 2), float(GRID)),
        )
        chance = np.random.default_rng([len(self.patients), int(study.removeprefix("study")), kind == "T1"])
        tokens = self.noise[chance.integers(0, _NOISE_SLICES, n)]
        shown = self._shown(self.canals[study], kind, x, half)
        tokens[..., :_SHOWN] = 0.1 * tokens[..., :_SHOWN] + shown.astype(np.float16)
        return SeriesGrid(f"{study} {kind}", kind, tokens, planes)

    def _shown(
        self, canal: npt.NDArray[Any], kind: str, x: npt.NDArray[Any], half: float
    ) -> npt.NDArray[Any]:
        """Return how near a disc is, the way to it, and which it is from the top and from the bottom."""
        offsets = _OFFSETS_MM[:1] if kind == "T2" else _OFFSETS_MM[1:3]
        points = (canal[None] + offsets[:, None]).reshape(-1, 3)
        number = np.tile(np.arange(5), len(offsets))
        y = (np.arange(GRID) * TOKEN_MM - half + 10)[:, None]
        z = (half - np.arange(GRID) * TOKEN_MM)[:, None]
        across = np.exp(-(((x[:, None] - points[:, 0]) / 6.0) ** 2))
        in_plane = ((z - points[:, 2]) ** 2)[:, None] + ((y - points[:, 1]) ** 2)[None]
        nearest = in_plane.argmin(axis=-1)
        near = np.exp(-in_plane.min(axis=-1) / 15.0**2) * across[:, nearest]
        ways = [(points[nearest, 1] - y.T) / TOKEN_MM, (points[nearest, 2] - z) / TOKEN_MM]
        parts = [np.ones_like(nearest), *ways, number[nearest], 4 - number[nearest]]
        return np.stack([near * part for part in parts], axis=-1)
