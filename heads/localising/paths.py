"""The best path through a spine: one token a disc, from the head down, by dynamic programming over the grid.

A token stands for the place where it says that the disc is, not for its middle: of an encoder with 12 x 12 tokens,
22 mm each, two middles say next to nothing of a distance of 34 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.localising.spine_prior import Floats, Gaussian

Tokens = npt.NDArray[np.int64]
# Of grids with more tokens, so many of the highest score are tried for each disc.
MOST_TOKENS = 100


@dataclass(frozen=True, eq=False)
class Path:
    """One token a disc.

    Parameters
    ----------
    tokens
        (discs, 2) int64 row and column.
    score
        Sum of the tokens' scores less the penalties of the steps between them.
    """

    tokens: Tokens
    score: float


def best_path(scores: Floats, places: Floats, steps: Sequence[Gaussian]) -> Path:
    """Return the path of the highest score: exactly, over all tokens or the `MOST_TOKENS` best of each disc.

    Parameters
    ----------
    scores
        (discs, rows, columns) log score of each disc at each token.
    places
        (rows, columns, 2) where each token says that a disc is, (y, z) mm.
    steps
        The displacement from each disc to the next, (y, z) mm.
    """
    flat, at = scores.reshape(len(scores), -1), places.reshape(-1, 2)
    tried = [_tried(own) for own in flat]
    best = flat[0, tried[0]]
    came_from: list[Tokens] = []
    for disc, step in enumerate(steps, start=1):
        offsets = at[tried[disc]][None] - at[tried[disc - 1]][:, None]
        arriving = best[:, None] - step.penalty(offsets)
        origin = arriving.argmax(axis=0)
        came_from.append(origin)
        best = arriving[origin, np.arange(len(origin))] + flat[disc, tried[disc]]
    place = int(best.argmax())
    total = float(best[place])
    chosen = [place]
    for origin in reversed(came_from):
        chosen.append(int(origin[chosen[-1]]))
    tokens = [int(own[place]) for own, place in zip(tried, reversed(chosen), strict=True)]
    return Path(np.stack(np.unravel_index(tokens, scores.shape[1:]), axis=1).astype(np.int64), total)


def shifted_paths(path: Path, scores: Floats, places: Floats, steps: Sequence[Gaussian]) -> list[Path]:
    """Return the path under the names of the level above and of the level below, each with its best free disc.

    That is how a spine is misread: all discs right, every name off by one.
    """
    found = []
    for up in (True, False):
        kept = path.tokens[:-1] if up else path.tokens[1:]
        # Named one lower, the first disc is free; named one higher, the last.
        names = slice(1, None) if up else slice(None, -1)
        inner = _fixed_score(kept, scores[names], places, steps[1:] if up else steps[:-1])
        step, end = (steps[0], kept[0]) if up else (steps[-1], kept[-1])
        offsets = places - places[end[0], end[1]]
        free = scores[0 if up else -1] - step.penalty(-offsets if up else offsets)
        at = np.array(np.unravel_index(int(free.argmax()), free.shape))
        tokens = np.concatenate([at[None], kept]) if up else np.concatenate([kept, at[None]])
        found.append(Path(tokens.astype(np.int64), inner + float(free.max())))
    return found


def settled(places: Floats, steps: Sequence[Gaussian], error_mm: float) -> Floats:
    """Return the most likely places of discs that were seen to within an error, and lie apart as discs do.

    Parameters
    ----------
    places
        (discs, 2) where they were seen, (y, z) mm.
    steps
        The displacement from each disc to the next.
    error_mm
        Standard deviation of a place along each axis.

    Returns
    -------
    (discs, 2): the mean of the Gaussian that the two make together.
    """
    discs = len(places)
    precision = np.eye(2 * discs) / error_mm**2
    pull = places.ravel() / error_mm**2
    for disc, step in enumerate(steps):
        own = np.linalg.inv(step.covariance)
        between = np.zeros((2, 2 * discs))
        between[:, 2 * disc : 2 * disc + 4] = np.concatenate([-np.eye(2), np.eye(2)], axis=1)
        precision += between.T @ own @ between
        pull += between.T @ own @ step.mean
    return np.asarray(np.linalg.solve(precision, pull).reshape(discs, 2), np.float64)


def _fixed_score(tokens: Tokens, scores: Floats, places: Floats, steps: Sequence[Gaussian]) -> float:
    own = scores[np.arange(len(tokens)), tokens[:, 0], tokens[:, 1]].sum()
    offsets = np.diff(places[tokens[:, 0], tokens[:, 1]], axis=0)
    return float(own - sum(float(step.penalty(offset)) for step, offset in zip(steps, offsets, strict=True)))


def _tried(scores: Floats) -> Tokens:
    if len(scores) <= MOST_TOKENS:
        return np.arange(len(scores))
    return np.sort(np.argpartition(-scores, MOST_TOKENS)[:MOST_TOKENS]).astype(np.int64)
