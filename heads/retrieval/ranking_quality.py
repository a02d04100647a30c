"""How good one ranking is, and how good a ranking by chance would be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from heads.scores import Floats


def precision_at(relevant: npt.NDArray[np.bool_], k: int) -> float:
    """Return the share of relevant ones among the first `k`, or among all where there are fewer; NaN of nothing.

    Examples
    --------
    >>> precision_at(np.array([True, False, True, True]), 2)
    0.5
    """
    return float(relevant[:k].mean()) if len(relevant) else np.nan


def average_precision(relevant: npt.NDArray[np.bool_]) -> float:
    """Return the mean, over the relevant ones, of the precision down to each; NaN where none is relevant.

    Examples
    --------
    >>> average_precision(np.array([True, False, True]))  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    places = np.flatnonzero(relevant) + 1
    return float((np.arange(1, len(places) + 1) / places).mean()) if len(places) else np.nan


def ndcg_at(gains: Floats, k: int) -> float:
    """Return the normalised discounted cumulative gain of the first `k`.

    Jarvelin & Kekalainen 2002, doi 10.1145/582415.582418. Gains are discounted by ``log2(place + 1)``; 1 is the
    best order of all gains, NaN where none is above 0.

    Examples
    --------
    >>> round(ndcg_at(np.array([0.0, 1.0]), 2), 4)  # 1 / log2(3)
    0.6309
    """
    best = np.sort(gains)[::-1][:k] @ _discounts(len(gains[:k]))
    return float(gains[:k] @ _discounts(len(gains[:k])) / best) if best > 0 else np.nan


def precision_by_chance(relevant: int, candidates: int) -> float:
    """Return the expected precision of a random order: the prevalence."""
    return relevant / candidates if candidates else np.nan


def average_precision_by_chance(relevant: int, candidates: int) -> float:
    """Return the expected average precision of a random order (Bestgen 2015, 10.1371/journal.pone.0137125).

    Examples
    --------
    >>> average_precision_by_chance(1, 2)  # (1/1 + 1/2) / 2
    0.75
    """
    if not relevant:
        return np.nan
    if candidates == 1:
        return 1.0
    harmonic = float((1 / np.arange(1, candidates + 1)).sum())
    others = candidates - relevant
    return (relevant - 1 + others * harmonic / candidates) / (candidates - 1)


def ndcg_by_chance(gains: Floats, k: int) -> float:
    """Return the expected `ndcg_at` of a random order: every place has the mean gain."""
    best = np.sort(gains)[::-1][:k] @ _discounts(len(gains[:k]))
    return float(gains.mean() * _discounts(len(gains[:k])).sum() / best) if best > 0 else np.nan


def _discounts(count: int) -> Floats:
    return 1 / np.log2(np.arange(2, count + 2))
