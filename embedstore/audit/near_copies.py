"""Near duplicates: proposed by vectors, decided by pixels, at thresholds that the store's own distances fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.audit.audited_rows import AuditedRows
from embedstore.audit.registration import Detail, likeness, moved_likeness

Pixels = npt.NDArray[np.uint8]

# Of a normal distribution, one of 2,000 lies beyond: a false pair among 2,000 nearest ones.
_RARE = 3.29
_CLOSE = 3  # each is among so many nearest of the other
_USUAL_PAIRS = 128
_LOOKED_AT = (
    0.75  # quantile of the distances; a copy that is turned by 3 degrees is as far as half of the neighbours
)
_EVIDENT = 0.9  # likeness of what is a copy as it is
_AT_75 = 0.6745  # standard deviations to the third quartile
_LEAST, _MOST = 0.5, 0.98
_FEWEST = 8
_MOST_PAIRS = 20_000


@dataclass(frozen=True, kw_only=True)
class NearCandidates:
    """Pairs that may be near duplicates.

    Parameters
    ----------
    pairs
        (p, 2) rows, the first below the second, nearest first.
    distances
        (p,) 1 - cosine.
    below
        Distance from which one in 2,000 nearest neighbours of another patient lies, by a normal distribution of the
        logarithms fitted to the store's own: what is nearer is a copy, as far as vectors can tell.
    typical
        The distance that three of four nearest images of another patient stay below: what is farther is not looked at.
    usual
        (q, 2) rows: some images and the nearest one of another patient, which is seldom a copy.
    """

    pairs: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]
    below: float
    typical: float
    usual: npt.NDArray[np.int64]


def near_candidates(rows: AuditedRows, *, seed: int = 0) -> NearCandidates | None:
    """Return the pairs that may be near duplicates; None where there are not two patients to learn a distance from."""
    others, distances = rows.nearest_others
    known = others[:, 0] >= 0 if len(others) else np.zeros(0, np.bool_)
    if known.sum() < 2:
        return None
    logs = np.log(np.maximum(distances[known, 0], 1e-6))
    middle = float(np.median(logs))
    # The lower half of the spread: that of the neighbours that are most like copies.
    spread = middle - float(np.quantile(logs, 0.16))
    below = float(np.exp(middle - _RARE * spread))
    typical = float(np.exp(np.quantile(logs, _LOOKED_AT)))
    found: dict[tuple[int, int], float] = {}
    ranks: dict[tuple[int, int], int] = {}
    for near, away in (rows.nearest, rows.nearest_others):
        for row, of_row, at in zip(rows.firsts.tolist(), near.tolist(), away.tolist(), strict=True):
            for rank, (other, distance) in enumerate(zip(of_row[:_CLOSE], at[:_CLOSE], strict=True)):
                if other >= 0 and distance <= typical:
                    ranks[row, other] = min(rank, ranks.get((row, other), rank))
                    found[min(row, other), max(row, other)] = distance
    mutual = {
        pair: distance
        for pair, distance in found.items()
        if distance <= below or {pair, pair[::-1]} <= ranks.keys()
    }
    ordered = sorted(mutual.items(), key=lambda entry: (entry[1], entry[0]))
    pairs = np.array([pair for pair, _ in ordered], np.int64).reshape(-1, 2)
    return NearCandidates(
        pairs=pairs,
        distances=np.array([distance for _, distance in ordered]),
        below=below,
        typical=typical,
        usual=_usual_pairs(rows, seed),
    )


def copies_by_vectors(candidates: NearCandidates) -> list[tuple[int, int, float]]:
    """Return the pairs that are near enough, with their cosine."""
    near = candidates.distances <= candidates.below
    return [
        (int(one), int(other), float(1 - distance))
        for (one, other), distance in zip(candidates.pairs[near], candidates.distances[near], strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class PixelCopies:
    """Near duplicates by their pixels.

    Parameters
    ----------
    pairs
        Two rows, and their likeness (`embedstore.audit.registration`).
    threshold
        The likeness from which one in 2,000 nearest pairs of different patients lies, by a normal distribution of its
        inverse hyperbolic tangent, fitted to some of the store.
    undecided
        Pairs that were not laid over each other at turns and scales, because there were too many.
    """

    pairs: Sequence[tuple[int, int, float]]
    threshold: float
    undecided: int


def copies_by_pixels(candidates: NearCandidates, pictures: Mapping[int, Pixels]) -> PixelCopies:
    """Decide by pixels which pairs are near duplicates.

    Parameters
    ----------
    candidates
        The pairs.
    pictures
        Row -> (`registration.SIDE_PX`, `SIDE_PX`) uint8; a pair without its pictures is none.
    """
    details = {row: Detail(pixels) for row, pixels in pictures.items()}
    threshold = _threshold(
        [
            moved_likeness(details[one], details[other])
            for one, other in candidates.usual.tolist()
            if one in details and other in details and likeness(details[one], details[other]) < _EVIDENT
        ]
    )
    found, undecided = [], 0
    for number, (one, other) in enumerate(candidates.pairs.tolist()):
        if one not in details or other not in details:
            continue
        score = likeness(details[one], details[other])
        if score < threshold:
            if number >= _MOST_PAIRS:
                undecided += 1
                continue
            score = moved_likeness(details[one], details[other])
        if score >= threshold:
            found.append((one, other, score))
    return PixelCopies(pairs=found, threshold=threshold, undecided=undecided)


def _threshold(usual: Sequence[float]) -> float:
    """Return the likeness beyond which hardly any pair lies that is no copy."""
    if len(usual) < _FEWEST:
        return _MOST
    spread = np.arctanh(np.clip(usual, -0.999, 0.999))
    middle = float(np.median(spread))
    beyond = middle + _RARE * (float(np.quantile(spread, 0.75)) - middle) / _AT_75
    return float(np.clip(np.tanh(beyond), _LEAST, _MOST))


def _usual_pairs(rows: AuditedRows, seed: int) -> npt.NDArray[np.int64]:
    """Return (q, 2) rows of some images and their nearest one of another patient."""
    others, _ = rows.nearest_others
    known = np.flatnonzero(others[:, 0] >= 0)
    some = np.random.default_rng(seed).permutation(known)[:_USUAL_PAIRS]
    return np.stack([rows.firsts[some], others[some, 0]], axis=1).astype(np.int64)
