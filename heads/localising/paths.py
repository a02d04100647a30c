"""The best path through a spine: one token a disc, from the head down, by dynamic programming on the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.localising.spine_prior import Floats, Gaussian

Tokens = npt.NDArray[np.int64]
# A step that is exp(-60) times as likely as the usual one is not tried: ten standard deviations.
_IMPOSSIBLE_NATS = 60.0


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


def best_path(scores: Floats, steps: Sequence[Gaussian], step_mm: Floats) -> Path | None:
    """Return the path of the highest score, exactly.

    Parameters
    ----------
    scores
        (discs, rows, columns) log score of each disc at each token.
    steps
        The displacement from each disc to the next, (y, z) mm.
    step_mm
        (2, 2): (y, z) mm from a token to the one below it, and to the one right of it.

    Returns
    -------
    Path or None
        None if no token can be reached: the grid is smaller than a spine.
    """
    best = scores[0]
    came_from = []
    for disc, step in enumerate(steps, start=1):
        reached, origin = _step(best, step, step_mm)
        came_from.append(origin)
        best = reached + scores[disc]
    place = int(best.argmax())
    total = float(best.ravel()[place])
    if not np.isfinite(total):
        return None
    places = [place]
    for origin in reversed(came_from):
        places.append(int(origin.ravel()[places[-1]]))
    return Path(np.stack(np.unravel_index(places[::-1], best.shape), axis=1).astype(np.int64), total)


def shifted_paths(path: Path, scores: Floats, steps: Sequence[Gaussian], step_mm: Floats) -> list[Path]:
    """Return the path under the names of the level above and of the level below, each with its best free disc.

    That is how a spine is misread: all discs right, every name off by one.
    """
    found = []
    for up in (True, False):
        kept = path.tokens[:-1] if up else path.tokens[1:]
        # Named one lower, the first disc is free; named one higher, the last.
        names = slice(1, None) if up else slice(None, -1)
        inner = _fixed_score(kept, scores[names], steps[1:] if up else steps[:-1], step_mm)
        step, end = (steps[0], kept[0]) if up else (steps[-1], kept[-1])
        rows, columns = np.indices(scores.shape[1:])
        offsets = np.stack([rows - end[0], columns - end[1]], axis=-1) @ step_mm
        free = scores[0 if up else -1] - step.penalty(-offsets if up else offsets)
        at = np.array(np.unravel_index(int(free.argmax()), free.shape))
        tokens = np.concatenate([at[None], kept]) if up else np.concatenate([kept, at[None]])
        found.append(Path(tokens.astype(np.int64), inner + float(free.max())))
    return found


def _fixed_score(tokens: Tokens, scores: Floats, steps: Sequence[Gaussian], step_mm: Floats) -> float:
    own = scores[np.arange(len(tokens)), tokens[:, 0], tokens[:, 1]].sum()
    offsets = np.diff(tokens, axis=0) @ step_mm
    return float(own - sum(float(step.penalty(offset)) for step, offset in zip(steps, offsets, strict=True)))


def _step(before: Floats, step: Gaussian, step_mm: Floats) -> tuple[Floats, Tokens]:
    """Return the best score of arriving at each token, and the token it came from (flat)."""
    rows, columns = before.shape
    number = np.arange(rows * columns).reshape(rows, columns)
    reached = np.full(before.shape, -np.inf)
    origin = np.zeros(before.shape, np.int64)
    downs, rights = np.arange(-rows + 1, rows), np.arange(-columns + 1, columns)
    offsets = np.stack(np.meshgrid(downs, rights, indexing="ij"), axis=-1)
    penalties = step.penalty(offsets @ step_mm)
    for down, right in offsets[penalties <= _IMPOSSIBLE_NATS]:
        to = (_to(down, rows), _to(right, columns))
        of = (_to(-down, rows), _to(-right, columns))
        arriving = before[of] - penalties[down + rows - 1, right + columns - 1]
        better = arriving > reached[to]
        reached[to] = np.where(better, arriving, reached[to])
        origin[to] = np.where(better, number[of], origin[to])
    return reached, origin


def _to(offset: int, length: int) -> slice:
    """Return where tokens lie that are reached by an offset from within the grid."""
    return slice(max(offset, 0), min(length + offset, length))
