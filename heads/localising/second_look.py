"""A second look: the levels that were found in whole slices, moved by what crops around them show.

A token of a whole slice is several times as wide as one of a crop. The networks are those of the first look, asked for
one point beside the middle of one crop: a map of discs, those of their names, and the way to the nearest. What they say
is held against how far first looks are usually off, and believed as far as it was right out of fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from embedstore.geometry import slice_normal
from embedstore.identity import Identity
from embedstore.lumbar.crop_rule import CropRule
from embedstore.lumbar.level_points import FOUR_LEVELS, SIX_LEVELS, LevelPoints
from embedstore.lumbar.levels import LEVELS
from embedstore.lumbar.looks import Looks
from heads.localising.network import MapNetwork, read_maps
from heads.localising.recipe import Recipe
from heads.localising.spine_prior import Floats

# The level whose map is asked for a name that has none: the one that is as far down the spine.
_OF_NAME = {name: min(place, len(LEVELS) - 1) for place, name in enumerate(LEVELS)} | {
    SIX_LEVELS[4]: 3,
    SIX_LEVELS[5]: 4,
    FOUR_LEVELS[3]: 4,
}


@dataclass(frozen=True, eq=False)
class View:
    """What was learned of one kind of crop.

    Parameters
    ----------
    networks
        Of each fold.
    spread_mm
        (2,) how far the point usually lies from the middle, along columns and rows (root of the mean square).
    share
        0 to 1: how much of what the networks say is believed, by which errors out of fold were smallest.
    """

    networks: Sequence[MapNetwork]
    spread_mm: Floats
    share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondLook:
    """Moves points by crops around them.

    Parameters
    ----------
    identity
        Of the tokens of the crops, with the rule by which they were cut.
    rule
        That rule: the same crops are cut of a new study.
    recipe
        How the networks were learned and are read.
    views
        Kind of crop -> what was learned of it; a kind of which nothing could be learned is absent.
    """

    identity: Identity
    rule: CropRule
    recipe: Recipe
    views: Mapping[str, View]

    def refine(
        self, points: LevelPoints, looks: Looks, tokens: npt.NDArray[Any], identity: Identity
    ) -> LevelPoints:
        """Return the points of new studies, moved; those that no crop shows follow the canal of their level, or stay.

        Parameters
        ----------
        points
            Of the first look.
        looks
            Crops around them.
        tokens
            (looks, rows, columns, features).
        identity
            Of the tokens.

        Raises
        ------
        IdentityMismatch
            If the tokens are of another encoder or other crops than the networks learned from.
        """
        self.identity.require_same(identity, holder="the localiser's second look")
        shifts = np.full((len(looks), 2), np.nan)
        for kind, view in self.views.items():
            rows = np.flatnonzero(looks.kinds == kind)
            if len(rows):
                levels = levels_of(points, looks, rows)
                asked = list(view.networks)
                said = shifts_of(asked, looks, rows, tokens[rows], levels, view.spread_mm, self.recipe)
                shifts[rows] = view.share * said
        return moved(points, looks, shifts)


def levels_of(points: LevelPoints, looks: Looks, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (rows,) the number of the level whose map of names is asked of each look."""
    names = points.levels[looks.points[rows]]
    return np.array([_OF_NAME[name] for name in names], np.int64)


def shifts_of(
    networks: list[MapNetwork],
    looks: Looks,
    rows: npt.NDArray[np.int64],
    tokens: npt.NDArray[Any],
    levels: npt.NDArray[np.int64],
    spread_mm: Floats,
    recipe: Recipe,
) -> Floats:
    """Return (rows, 2) mm along columns and rows from the middle of each crop to the point that the networks see.

    Parameters
    ----------
    rows
        The looks that are asked.
    tokens, levels
        Of each of `rows`.
    """
    sizes = looks.planes.spacings_mm[rows][:, ::-1]  # mm a column, mm a row
    down, across = tokens.shape[1:3]
    row, column = np.indices((down, across), dtype=np.float64)
    away = np.stack([column - (across - 1) / 2, row - (down - 1) / 2], axis=-1)
    found = np.empty((len(rows), 2))
    for at in range(len(rows)):
        maps = read_maps(networks, tokens[at : at + 1])
        said = (away + maps.ways[0, ..., ::-1]) * sizes[at]
        score = maps.disc[0] + recipe.name_weight * maps.names[levels[at], 0]
        share = softmax(score - (said**2 / (2 * spread_mm**2)).sum(axis=-1))
        found[at] = (share[..., None] * said).sum(axis=(0, 1))
    return found


def moved(points: LevelPoints, looks: Looks, shifts_mm: Floats) -> LevelPoints:
    """Return points, each moved by the mean of what its crops say.

    A crop says nothing of the way across its slice, where a recess follows the canal of its level; so does, in every
    direction, a point without a crop that was not seen at the first look either.

    Parameters
    ----------
    shifts_mm
        (looks, 2) along columns and rows of each crop; NaN where it says nothing.
    """
    offsets = looks.in_patient_mm(shifts_mm)
    normals = slice_normal(looks.planes.orientations)
    said = np.isfinite(shifts_mm).all(axis=1)
    of_point: dict[int, list[int]] = {}
    for look in np.flatnonzero(said).tolist():
        of_point.setdefault(int(looks.points[look]), []).append(look)
    canal = {
        (study, level): offsets[of_point[row]].mean(axis=0)
        for row, (study, structure, level) in enumerate(
            zip(points.study_ids, points.structures, points.levels, strict=True)
        )
        if structure == "canal" and row in of_point
    }
    xyz, series = points.xyz_mm.copy(), points.series_ids.copy()
    for row, (study, structure, level) in enumerate(
        zip(points.study_ids, points.structures, points.levels, strict=True)
    ):
        own, with_canal = of_point.get(row), canal.get((study, level), np.zeros(3))
        if own is None:
            if structure != "canal" and not points.series_ids[row]:
                xyz[row] += with_canal
            continue
        xyz[row] += offsets[own].mean(axis=0)
        if structure.endswith("_subarticular"):
            normal = normals[own[0]]
            xyz[row] += normal * (normal @ with_canal)
            series[row] = looks.series_ids[own[0]]
    return replace(points, xyz_mm=xyz, series_ids=series)
