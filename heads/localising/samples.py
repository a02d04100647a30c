"""What is learned from: some slices of each study, and the points on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedstore.lumbar.series_grid import SeriesGrid, StudyGrids
from heads.localising.recipe import Recipe
from heads.localising.spine_prior import Floats


@dataclass(frozen=True, eq=False)
class Samples:
    """Slices of n studies.

    Parameters
    ----------
    studies
        (n,) int64: row of the study in the caller's list.
    tokens
        (n, slices, rows, columns, features), of the store's dtype.
    there
        (n, slices) bool: False where a study has fewer slices.
    corners_mm, rows_mm, columns_mm
        (n, slices, 3): the middle of each slice's first token, and the way to the one below and to the one right of it.
    points_mm
        (n, points, 5 levels, 3), NaN where missing: one point a level on T2, left and right on T1.
    """

    studies: npt.NDArray[np.int64]
    tokens: npt.NDArray[Any]
    there: npt.NDArray[np.bool_]
    corners_mm: Floats
    rows_mm: Floats
    columns_mm: Floats
    points_mm: Floats

    def __len__(self) -> int:
        return len(self.studies)


@dataclass(frozen=True, eq=False)
class Targets:
    """What the maps of a batch should say.

    Parameters
    ----------
    disc
        (n, slices, rows, columns) shares that sum to 1.
    names
        (n, slices, rows, columns, 5) shares that sum to 1 for each level that has a point.
    named
        (n, 5) whether a level has one.
    ways
        (n, slices, rows, columns, 2) rows and columns to the nearest point.
    """

    disc: Tensor
    names: Tensor
    named: Tensor
    ways: Tensor

    def of(self, rows: npt.NDArray[np.int64]) -> Targets:
        """Return those of some samples."""
        return Targets(self.disc[rows], self.names[rows], self.named[rows], self.ways[rows])


class SampleCollector:
    """Takes the slices to learn from, one study after the other.

    Parameters
    ----------
    points
        (studies, 5 structures, 5 levels, 3) of `heads.localising.spine_prior.point_array`.
    kind
        ``T2`` learns the canal, ``T1`` the foramina.
    """

    def __init__(self, points: Floats, *, kind: str, recipe: Recipe) -> None:
        self.kind = kind
        self.wanted = recipe.slices(kind)
        self.points = points[:, [0] if kind == "T2" else [1, 2]]
        self.rows: list[int] = []
        self.there: list[npt.NDArray[np.bool_]] = []
        self.planes: list[tuple[Floats, Floats, Floats]] = []
        self.tokens: npt.NDArray[Any] | None = None

    def add(self, row: int, study: StudyGrids) -> None:
        """Take the study of a row of the points, if it has a series of the kind and a point for it."""
        own = self.points[row]
        grids = study.of_kind(self.kind)
        if not grids or not np.isfinite(own).any():
            return
        grid = max(grids, key=lambda grid: len(grid.tokens))
        if self.tokens is None:
            # Of all studies at once, because the sum of many pieces would be in memory twice.
            self.tokens = np.zeros((len(self.points), self.wanted, *grid.tokens.shape[1:]), grid.tokens.dtype)
        chosen = _slices_to_learn(grid, own, self.wanted)
        self.tokens[len(self.rows), : len(chosen)] = grid.tokens[chosen]
        self.rows.append(row)
        self.there.append(np.arange(self.wanted) < len(chosen))
        self.planes.append(_affine(grid, chosen, self.wanted))

    def samples(self) -> Samples | None:
        """Return what was taken; None if it is nothing."""
        if self.tokens is None:
            return None
        corners, downs, rights = (np.stack(part) for part in zip(*self.planes, strict=True))
        rows = np.array(self.rows)
        return Samples(
            rows,
            self.tokens[: len(rows)],
            np.stack(self.there),
            corners,
            downs,
            rights,
            self.points[rows],
        )


def targets_of(samples: Samples, chosen: npt.NDArray[np.int64], recipe: Recipe) -> Targets:
    """Return the targets of some samples: Gaussians around the points, in their slices and across them."""

    def tensor(array: Floats) -> Tensor:
        return torch.from_numpy(array[chosen].astype(np.float32))

    corner, down, right, points = map(
        tensor, (samples.corners_mm, samples.rows_mm, samples.columns_mm, samples.points_mm)
    )
    rows, columns = samples.tokens.shape[2:4]
    # (n, slices, rows, columns, 3)
    centres = (
        corner[:, :, None, None]
        + torch.arange(rows)[None, None, :, None, None] * down[:, :, None, None]
        + torch.arange(columns)[None, None, None, :, None] * right[:, :, None, None]
    )
    n, kinds, levels = points.shape[:3]
    known = torch.isfinite(points).all(-1)
    flat = torch.nan_to_num(points).view(n, kinds * levels, 3)
    # One axis after the other: (n, slices, rows, columns, points, 3) at once takes three times as long.
    x, y, z = (flat[:, None, None, None, :, axis] - centres[..., axis, None] for axis in range(3))
    size_mm = (down.norm(dim=-1) + right.norm(dim=-1))[:, :, None, None, None] / 2
    # The slice's own axis is nearly x; what lies beside it is measured in tokens.
    exponent = (y**2 + z**2) / (recipe.sigma_tokens * size_mm) ** 2 + x**2 / recipe.sigma_slices_mm**2
    there = torch.from_numpy(samples.there[chosen])[:, :, None, None, None]
    mass = torch.exp(-exponent / 2) * there * known.view(n, 1, 1, 1, -1)
    # Each point counts the same, however few of its slices are there.
    mass = mass / mass.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    names = mass.view(*mass.shape[:4], kinds, levels).sum(4)
    names = names / names.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    disc = mass.sum(-1)
    disc = disc / disc.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)
    nearest = torch.where(known.view(n, 1, 1, 1, -1), exponent, torch.inf).argmin(-1)
    way = flat[torch.arange(n)[:, None, None, None], nearest] - centres
    ways = torch.stack(
        [
            (way * axis[:, :, None, None]).sum(-1) / (axis**2).sum(-1)[:, :, None, None]
            for axis in (down, right)
        ],
        dim=-1,
    )
    return Targets(disc, names, known.any(1), ways)


def _slices_to_learn(grid: SeriesGrid, points: Floats, wanted: int) -> npt.NDArray[np.int64]:
    """Return the slices nearest to the points, two thirds of the wanted, and others spread over the series."""
    slice_x = grid.centres_mm()[..., 0].mean(axis=(1, 2))
    sides = np.array([side[np.isfinite(side)].mean() for side in points[..., 0] if np.isfinite(side).any()])
    near = np.abs(slice_x[:, None] - sides).min(axis=1)
    order = np.argsort(near, kind="stable")
    close = order[: max(1, round(wanted * 2 / 3))]
    rest = np.sort(order[len(close) :])
    more = min(wanted - len(close), len(rest))
    spread = rest[np.linspace(0, len(rest) - 1, more).round().astype(int)] if more > 0 else rest[:0]
    return np.sort(np.concatenate([close, np.unique(spread)])).astype(np.int64)


def _affine(grid: SeriesGrid, chosen: npt.NDArray[np.int64], wanted: int) -> tuple[Floats, Floats, Floats]:
    """Return corners, ways down and ways right of the chosen slices, each (wanted, 3)."""
    planes = grid.planes.take(chosen)
    down = planes.orientations[:, 3:] * planes.spacings_mm[:, :1]
    right = planes.orientations[:, :3] * planes.spacings_mm[:, 1:]
    blank = np.zeros((wanted - len(chosen), 3))
    unit = np.ones((wanted - len(chosen), 3))
    return (
        np.concatenate([planes.positions_mm, blank]),
        np.concatenate([down, unit]),
        np.concatenate([right, unit]),
    )
