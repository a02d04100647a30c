"""Synthetic token grids: spines whose discs can be seen in the tokens, without an image or an encoder.

A token holds how near it is to a disc (1 at its middle), the way to it, and what the neighbourhood would tell of the
level: how far the disc is from the last and from the first one, in discs. Everything else is noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from embedstore.identity import ArraySpec, Identity
from embedstore.images.preprocess import PreprocessSpec
from embedstore.lumbar.level_points import STRUCTURES, LevelPoints, points_from_rows
from embedstore.lumbar.levels import LEVELS
from embedstore.lumbar.series_grid import SeriesGrid, StudyGrids, study_grids
from embedstore.slices.planes import SlicePlanes
from embedstore.tokens.grid import GRID_DIMENSIONS, TOKENS

GRID, TOKEN_MM, FEATURES = 14, 19.0, 6
SLICE_X_MM = np.linspace(-24.0, 24.0, 7)
FORAMEN_MM = np.array([18.0, -3.0, 5.0])
RECESS_MM = np.array([8.0, -4.0, 0.0])
IDENTITY = Identity(
    "synthetic",
    "1",
    "none",
    PreprocessSpec("pad", size_px=256).to_json(),
    "none",
    "float32",
    4,
    arrays={TOKENS: ArraySpec((GRID, GRID, FEATURES), GRID_DIMENSIONS, "what is near")},
)


@dataclass
class SpineSource:
    """Studies by name; a `heads.localising.cross_fit.GridSource`."""

    grids: dict[str, StudyGrids] = field(default_factory=dict)
    points: list[dict] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)
    identity: Identity = IDENTITY
    reads: list[str] = field(default_factory=list)

    def read(self, study_ids):
        for study in study_ids:
            self.reads.append(study)
            yield self.grids[study]

    @property
    def oracle(self) -> LevelPoints:
        return points_from_rows(self.points, origin="oracle", digest=None, left_out={})

    def add(self, study, canal, *, labelled=True, kinds=("T2", "T1"), patient=None, seed=0, noise=0.1):
        """Add a study whose discs lie at (discs, 3) mm."""
        chance = np.random.default_rng([seed, len(self.grids)])
        series = [grid_of(kind, canal, chance, noise=noise) for kind in kinds]
        self.grids[study] = study_grids(study, tuple(series))
        self.patients[study] = patient or f"patient of {study}"
        if labelled:
            self.points += oracle_rows(study, canal)
        return self


def spine(chance, *, discs=5, shift_mm=15.0):
    """Return the canal points of a spine, (discs, 3) mm from the first lumbar disc down."""
    size = chance.normal(1.0, 0.05)
    place = np.arange(discs) - (discs - 1) / 2
    z = -34.0 * size * place + chance.normal(0.0, shift_mm)
    y = 25.0 + 4.0 * np.cos(place) + chance.normal(0.0, 5.0)
    x = chance.normal(0.0, 1.0, discs)
    return np.stack([x, y, z], axis=1)


def planes_of(slices=SLICE_X_MM):
    half = (GRID - 1) / 2 * TOKEN_MM
    n = len(slices)
    return SlicePlanes(
        np.tile([0.0, 1, 0, 0, 0, -1], (n, 1)),
        np.stack([slices, np.full(n, -half + 10), np.full(n, half)], axis=1),
        np.full((n, 2), TOKEN_MM),
        np.full((n, 2), float(GRID)),
    )


def grid_of(kind, canal, chance, *, noise, slices=SLICE_X_MM):
    planes = planes_of(slices)
    blank = SeriesGrid(f"series {kind}", kind, np.zeros((len(slices), GRID, GRID, 1), np.float32), planes)
    centres = blank.centres_mm()[..., None, :]
    sides = [np.zeros(3)] if kind == "T2" else [FORAMEN_MM, FORAMEN_MM * [-1, 1, 1]]
    shown = np.concatenate([canal + side for side in sides])
    number = np.tile(np.arange(len(canal)), len(sides))
    apart = shown - centres
    distance = np.sqrt((apart[..., 1:] ** 2).sum(-1) + (2.5 * apart[..., 0]) ** 2)
    nearest = distance.argmin(-1)
    near = np.exp(-((distance.min(-1) / TOKEN_MM) ** 2))
    way = np.take_along_axis(apart, nearest[..., None, None].repeat(3, -1), -2)[..., 0, :]
    tokens = np.stack(
        [
            near,
            near * way[..., 1] / TOKEN_MM,
            near * way[..., 2] / TOKEN_MM,
            near * number[nearest],
            near * (len(canal) - 1 - number[nearest]),
            *np.zeros((FEATURES - 5, *near.shape)),
        ],
        axis=-1,
    )
    tokens = tokens + chance.normal(0.0, noise, tokens.shape)
    return SeriesGrid(blank.series_id, kind, tokens.astype(np.float16), planes)


def oracle_rows(study, canal):
    places = {
        "canal": np.zeros(3),
        "left_foramen": FORAMEN_MM,
        "right_foramen": FORAMEN_MM * [-1, 1, 1],
        "left_subarticular": RECESS_MM,
        "right_subarticular": RECESS_MM * [-1, 1, 1],
    }
    return [
        {
            "study_id": study,
            "structure": structure,
            "level": level,
            "xyz_mm": canal[number] + places[structure],
            "series_id": "",
            "confidence": np.nan,
            "unsure": False,
        }
        for structure in STRUCTURES
        for number, level in enumerate(LEVELS)
    ]


def source_of(studies, *, seed=0, **options):
    """Return a source of five-disc spines."""
    chance = np.random.default_rng(seed)
    source = SpineSource()
    for number in range(studies):
        source.add(f"s{number}", spine(chance), seed=seed, **options)
    return source
