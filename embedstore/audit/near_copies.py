"""Near duplicates: proposed by vectors, decided by pixels, at thresholds that the store's own distances fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.audit.audited_rows import AuditedRows
from embedstore.audit.pictures import Pictures, units_of
from embedstore.audit.registration import Detail, likeness, moved_likeness
from embedstore.similarity.exact_search import ExactSearch
from embedstore.similarity.scan import Rows

# Standard deviations of a normal distribution, beyond which one of 2,000 lies, and one of 30,000: the likeness of two
# pictures that are moved until they fit has a longer tail than that.
_RARE, _VERY_RARE = 3.29, 4.0
_CLOSE = 3  # each is among so many nearest of the other
_USUAL_PAIRS = 128
# Quantiles of the distances. By vectors a copy that is turned by 3 degrees is as far as half of the neighbours.
_LOOKED_AT, _ALIKE = 0.75, 0.25
_EVIDENT = 0.9  # likeness of what is a copy as it is
_AT_75 = 0.6745  # standard deviations to the third quartile
# Likeness at least: of 1,070 phantoms without a copy, the most alike pair that was moved had .834.
_LEAST, _LEAST_MOVED, _MOST = 0.82, 0.86, 0.98
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
    mutual = _mutual(
        [
            (rows.firsts, near, np.where(away <= typical, away, np.inf))
            for near, away in (rows.nearest, rows.nearest_others)
        ],
        below=below,
    )
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


def alike_pairs(pictures: Pictures, content: Rows) -> npt.NDArray[np.int64]:
    """Return (p, 2) rows of pictures that are alike when very small: a copy is, whatever an encoder says of it.

    Parameters
    ----------
    pictures
        What was seen.
    content
        (n,) int64 of all rows, the same for identical pixels; of those the first counts.
    """
    _, first = np.unique(content[pictures.rows], return_index=True)
    own = np.sort(first)
    units = units_of(pictures.gists[own])
    own, units = own[units.any(axis=1)], units[units.any(axis=1)]
    rows = pictures.rows[own]
    count = min(_CLOSE, len(rows) - 1)
    if count < 1:
        return np.zeros((0, 2), np.int64)
    near, cosines = ExactSearch(units, unit=True).search(units, count, without=np.arange(len(units)))
    away = 1 - cosines
    typical = float(np.quantile(away[:, 0], _ALIKE))
    mutual = _mutual([(rows, rows[near], np.where(away <= typical, away, np.inf))], below=0.0)
    return np.array(sorted(mutual), np.int64).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class PixelCopies:
    """Near duplicates by their pixels.

    Parameters
    ----------
    pairs
        Two rows, and their likeness (`embedstore.audit.registration`).
    as_they_are, moved
        Likeness from which one in 30,000 nearest pairs of different patients lies, by a normal distribution of its
        inverse hyperbolic tangent, fitted to some of the store: of pictures as they are, and turned and scaled.
    undecided
        Pairs that were not laid over each other at turns and scales, because there were too many.
    """

    pairs: Sequence[tuple[int, int, float]]
    as_they_are: float
    moved: float
    undecided: int


def copies_by_pixels(
    pairs: npt.NDArray[np.int64], usual: npt.NDArray[np.int64], details: Mapping[int, Detail]
) -> PixelCopies:
    """Decide by pixels which pairs are near duplicates.

    Parameters
    ----------
    pairs
        (p, 2) rows, the likeliest first.
    usual
        (q, 2) rows: nearest pairs of different patients, of which hardly one is a copy.
    details
        Row -> the fine structure of its picture; a pair without its pictures is none.
    """
    likenesses = []
    for one, other in _seen(usual, details):
        pair = details[one], details[other]
        likenesses.append((likeness(*pair), moved_likeness(*pair)))
    others = [pair for pair in likenesses if pair[0] < _EVIDENT]
    plain = _threshold([pair[0] for pair in others], least=_LEAST)
    moved = _threshold([pair[1] for pair in others], least=_LEAST_MOVED)
    found, undecided, turned = [], 0, 0
    for one, other in _seen(pairs, details):
        pair = details[one], details[other]
        score = likeness(*pair)
        if score >= plain:
            found.append((one, other, score))
        elif turned >= _MOST_PAIRS:
            undecided += 1
        else:
            turned += 1
            score = moved_likeness(*pair)
            if score >= moved:
                found.append((one, other, score))
    return PixelCopies(pairs=found, as_they_are=plain, moved=moved, undecided=undecided)


def _seen(pairs: npt.NDArray[np.int64], details: Mapping[int, Detail]) -> Iterator[tuple[int, int]]:
    return ((one, other) for one, other in pairs.tolist() if one in details and other in details)


def _mutual(
    lists: Sequence[tuple[Rows, Rows, npt.NDArray[np.float64]]], *, below: float
) -> dict[tuple[int, int], float]:
    """Return pairs of which each is among the nearest of the other, or nearer than `below`, with their distances.

    Parameters
    ----------
    lists
        Rows (m,), their nearest ones (m, some), -1 where there are no more, and the distances of these.
    below
        Distance from which on one direction is enough.
    """
    found: dict[tuple[int, int], float] = {}
    directed: set[tuple[int, int]] = set()
    for rows, near, away in lists:
        for row, of_row, at in zip(rows.tolist(), near.tolist(), away.tolist(), strict=True):
            for other, distance in zip(of_row[:_CLOSE], at[:_CLOSE], strict=True):
                if other >= 0 and np.isfinite(distance):
                    directed.add((row, other))
                    found[min(row, other), max(row, other)] = distance
    return {
        pair: distance
        for pair, distance in found.items()
        if distance <= below or {pair, pair[::-1]} <= directed
    }


def _threshold(usual: Sequence[float], *, least: float) -> float:
    """Return the likeness beyond which hardly any pair lies that is no copy."""
    if len(usual) < _FEWEST:
        return _MOST
    spread = np.arctanh(np.clip(usual, -0.999, 0.999))
    middle = float(np.median(spread))
    beyond = middle + _VERY_RARE * (float(np.quantile(spread, 0.75)) - middle) / _AT_75
    return float(np.clip(np.tanh(beyond), least, _MOST))


def _usual_pairs(rows: AuditedRows, seed: int) -> npt.NDArray[np.int64]:
    """Return (q, 2) rows of some images and their nearest one of another patient."""
    others, _ = rows.nearest_others
    known = np.flatnonzero(others[:, 0] >= 0)
    some = np.random.default_rng(seed).permutation(known)[:_USUAL_PAIRS]
    return np.stack([rows.firsts[some], others[some, 0]], axis=1).astype(np.int64)
