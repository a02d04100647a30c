"""From the maps of a study to its levels: paths under every name that they may have, and the most likely one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax

from embedstore.lumbar.levels import LEVELS
from embedstore.lumbar.series_grid import SeriesGrid, StudyGrids
from heads.localising.network import MapNetwork, Maps, read_maps
from heads.localising.paths import Path, best_path, settled, shifted_paths
from heads.localising.recipe import Recipe
from heads.localising.spine_prior import Floats, Gaussian, SpinePrior

SIDES = ("left_foramen", "right_foramen")
VARIANTS = (4, 6)  # discs of a spine with one lumbar vertebra less, and one more
_FARTHEST_TOKENS = 1.5  # how far a token may point
# How far off tokens are with what they say, in tokens: measured on phantoms with 12 x 12 tokens of 22 mm.
_ERROR_TOKENS = 0.12
_WINDOW = 1  # tokens around that of the path: 3 x 3
# How far what those say may lie from what the path's token says, in tokens. Coarse tokens around one disc also speak of
# the next: heard alike, they draw the points of long spines together (150 off-centre phantoms: 4.2 mm and all names
# right in .947; heard like this, 2.1 mm and 1.000).
_AGREE_TOKENS = 0.4
_NEAR_X_MM = 15.0  # slices farther from where a foramen is expected are not looked at


@dataclass(frozen=True, eq=False)
class Found:
    """The levels of one study.

    Parameters
    ----------
    canal
        (5, 3) mm.
    canal_series
        The T2 series; ``""`` if there is none and the points follow from the foramina.
    foramina
        Structure -> (5, 3) mm, where a T1 series shows them.
    foramen_series
        Their series, or ``""``.
    margin
        Score under these names less that of the best other ones, all paths one level up or down.
    variants
        Number of discs (4, 6) -> how much better, a disc, such a spine fits; only where there is a T2 series.
    variant_canal
        Number of discs -> (discs, 3) mm.
    """

    canal: Floats
    canal_series: str
    foramina: Mapping[str, Floats]
    foramen_series: str
    margin: float
    variants: Mapping[int, float] = field(default_factory=dict)
    variant_canal: Mapping[int, Floats] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Read:
    """A series with its maps: what paths need of it."""

    grid: SeriesGrid
    maps: Maps
    said: Floats  # (slices, rows, columns, 3) mm: where each token says that the nearest disc is

    @property
    def slice_x(self) -> Floats:
        x: Floats = self.said[..., 0].mean(axis=(1, 2))
        return x

    @cached_property
    def middle(self) -> Floats:
        """(3,) mm: the middle of all tokens."""
        middle: Floats = self.grid.centres_mm().mean(axis=(0, 1, 2))
        return middle

    @cached_property
    def places(self) -> Floats:
        """(rows, columns, 2): (y, z) mm that the slices say together, each as far as it shows a disc there."""
        share = softmax(self.maps.disc, axis=0)[..., None]
        places: Floats = (share * self.said[..., 1:]).sum(axis=0)
        return places


def find_levels(
    study: StudyGrids, networks: Mapping[str, list[MapNetwork]], prior: SpinePrior, recipe: Recipe
) -> Found | None:
    """Find the levels of a study; None if no series shows a spine.

    Parameters
    ----------
    networks
        ``T2`` and ``T1`` -> networks whose mean is asked; a kind may be absent.
    """
    reads = {
        kind: [_read(grid, networks[kind]) for grid in study.of_kind(kind)]
        for kind in networks
        if networks[kind]
    }
    canals = [_canal_paths(read, prior, recipe) for read in reads.get("T2", [])]
    if canals:
        # Of two T2 series the one that shows the discs more clearly.
        return _with_foramina(max(canals, key=lambda of: of.paths[0].score), reads, prior, recipe)
    if not reads.get("T1") or not set(SIDES) <= prior.offsets.keys():
        return None
    shown = [_foramen_paths(read, prior, recipe) for read in reads["T1"]]
    return _with_foramina(max(shown, key=lambda of: of.paths[0].score), reads, prior, recipe)


@dataclass(frozen=True, eq=False)
class _Names:
    """One series' path under each of three names, and the canal that follows from each."""

    read: _Read
    scores: Floats  # (5, slices, rows, columns)
    paths: Sequence[Path]
    canals: Sequence[Floats]
    is_canal: bool


def _canal_paths(read: _Read, prior: SpinePrior, recipe: Recipe) -> _Names:
    scores = _scores(read.maps, recipe) - _unusual(read, prior.from_middle)
    joined = logsumexp(scores, axis=1)
    path = best_path(joined, read.places, prior.steps)
    paths = [path, *shifted_paths(path, joined, read.places, prior.steps)]
    return _Names(read, scores, paths, [_refined(read, scores, of, prior.steps) for of in paths], True)


def _foramen_paths(read: _Read, prior: SpinePrior, recipe: Recipe) -> _Names:
    """Names by a T1 series alone: both sides lie on one path, and the canal is where it usually is from there."""
    offset = np.mean([[entry.mean for entry in prior.offsets[side]] for side in SIDES], axis=0)
    scores = _scores(read.maps, recipe) - _unusual(read, prior.from_middle, offset)
    joined = logsumexp(scores, axis=1)
    path = best_path(joined, read.places, prior.foramen_steps)
    paths = [path, *shifted_paths(path, joined, read.places, prior.foramen_steps)]
    canals = []
    for of in paths:
        canal = _refined(read, scores, of, prior.foramen_steps) - offset
        canal[:, 0] = read.middle[0]
        canals.append(canal)
    return _Names(read, scores, paths, canals, False)


def _with_foramina(
    names: _Names, reads: Mapping[str, list[_Read]], prior: SpinePrior, recipe: Recipe
) -> Found:
    """Let the T1 series speak for one of the names, and return the levels under the winning one."""
    totals, found = [], []
    t1 = max(reads.get("T1", []), key=lambda read: len(read.grid.tokens), default=None)
    for path, canal in zip(names.paths, names.canals, strict=True):
        sides = {} if t1 is None else _foramina(t1, canal, prior, recipe)
        # A T1 series alone has named its path already.
        totals.append(path.score + (sum(score for score, _ in sides.values()) if names.is_canal else 0.0))
        found.append({side: points for side, (_, points) in sides.items()})
    best = int(np.argmax(totals))
    others = [total for place, total in enumerate(totals) if place != best]
    gaps, canals = _variants(names, prior, recipe) if names.is_canal else ({}, {})
    return Found(
        canal=names.canals[best],
        canal_series=names.read.grid.series_id if names.is_canal else "",
        foramina=found[best],
        foramen_series=t1.grid.series_id if t1 is not None and found[best] else "",
        margin=float(totals[best] - max(others)),
        variants=gaps,
        variant_canal=canals,
    )


def _foramina(
    read: _Read, canal: Floats, prior: SpinePrior, recipe: Recipe
) -> dict[str, tuple[float, Floats]]:
    """Return the score and the points of each side, given the canal."""
    found: dict[str, tuple[float, Floats]] = {}
    for side in SIDES:
        if side not in prior.offsets:
            continue
        expected_x = np.mean(canal[:, 0]) + np.mean([entry.mean[0] for entry in prior.offsets[side]])
        away = np.abs(read.slice_x - expected_x)
        near = away <= max(_NEAR_X_MM, float(away.min()) + 1e-6)
        scores = _scores(read.maps, recipe)[:, near]
        for level, entry in enumerate(prior.offsets[side]):
            scores[level] -= entry.penalty(read.said[near] - canal[level])
        path = best_path(logsumexp(scores, axis=1), read.places, prior.foramen_steps)
        found[side] = (path.score, _refined(read, scores, path, prior.foramen_steps, near=near))
    return found


def _variants(names: _Names, prior: SpinePrior, recipe: Recipe) -> tuple[dict[int, float], dict[int, Floats]]:
    """Return how much better, a disc, spines of four and of six discs fit than the one of five, and their points.

    The first and the last disc keep their names; each of those between bears either of two neighbouring ones.
    """
    read, five = names.read, names.paths[0].score / len(LEVELS)
    aside = names.scores - _scores(read.maps, recipe)  # how unusual a place is
    gaps, canals = {}, {}
    for discs in VARIANTS:
        place = np.linspace(0, len(LEVELS) - 1, discs)
        below = np.minimum(place.astype(int), len(LEVELS) - 2)
        share = (place - below)[:, None, None, None]
        with np.errstate(divide="ignore"):  # the last disc has no share of the one before
            of_names = np.logaddexp(
                np.log(1 - share) + read.maps.names[below], np.log(share) + read.maps.names[below + 1]
            )
        own = place.round().astype(int)
        scores = read.maps.disc + recipe.name_weight * of_names + aside[own]
        nearest = np.linspace(0, len(prior.steps) - 1, discs - 1).round().astype(int)
        steps = [prior.steps[k] for k in nearest]
        path = best_path(logsumexp(scores, axis=1), read.places, steps)
        gaps[discs] = path.score / discs - five
        canals[discs] = _refined(read, scores, path, steps)
    return gaps, canals


def _read(grid: SeriesGrid, networks: list[MapNetwork]) -> _Read:
    maps, planes = read_maps(networks, grid.tokens), grid.planes
    down = (planes.orientations[:, 3:] * planes.spacings_mm[:, :1])[:, None, None]
    right = (planes.orientations[:, :3] * planes.spacings_mm[:, 1:])[:, None, None]
    ways = np.clip(maps.ways, -_FARTHEST_TOKENS, _FARTHEST_TOKENS)
    return _Read(grid, maps, grid.centres_mm() + ways[..., :1] * down + ways[..., 1:] * right)


def _scores(maps: Maps, recipe: Recipe) -> Floats:
    """Return (5, slices, rows, columns)."""
    scores: Floats = maps.disc + recipe.name_weight * maps.names
    return scores


def _unusual(read: _Read, usual: Sequence[Gaussian], offset: Floats | None = None) -> Floats:
    """Return (5, slices, rows, columns) nats by which a token is an unusual place for each level.

    A spine lies where the technologist aimed: height and depth are one shift of all five levels, so that each level
    bears a fifth of what the shift costs.

    Parameters
    ----------
    offset
        (5, 3) mm from each canal point to what is looked for, on both sides: then no slice is unusual.
    """
    costs = np.zeros((len(usual), *read.said.shape[:3]))
    for level, entry in enumerate(usual):
        mean = entry.mean if offset is None else entry.mean + offset[level]
        shift = Gaussian(mean[1:], entry.covariance[1:, 1:])
        costs[level] = shift.penalty(read.said[..., 1:] - read.middle[1:]) / len(usual)
        if offset is None:
            beside = (read.slice_x - read.middle[0] - mean[0]) ** 2 / (2 * entry.covariance[0, 0])
            costs[level] += beside[:, None, None]
    return costs


def _refined(
    read: _Read,
    scores: Floats,
    path: Path,
    steps: Sequence[Gaussian],
    *,
    near: npt.NDArray[np.bool_] | slice = slice(None),
) -> Floats:
    """Return the points of a path in mm: the mean of where the tokens around each say that the disc is, `settled`.

    Tokens count as far as they agree with the path's own. `scores` are of the slices `near` alone.
    """
    said = read.said[near]
    token_mm = float(read.grid.planes.spacings_mm.mean())
    points = np.empty((len(path.tokens), 3))
    for disc, (row, column) in enumerate(path.tokens):
        window = np.s_[
            :,
            max(row - _WINDOW, 0) : row + _WINDOW + 1,
            max(column - _WINDOW, 0) : column + _WINDOW + 1,
        ]
        apart = ((said[window][..., 1:] - read.places[row, column]) ** 2).sum(axis=-1)
        share = softmax(scores[disc][window] - apart / (2 * (_AGREE_TOKENS * token_mm) ** 2))[..., None]
        points[disc] = (share * said[window]).sum(axis=(0, 1, 2))
    points[:, 1:] = settled(points[:, 1:], steps, _ERROR_TOKENS * token_mm)
    return points
