"""All pairs: few rows in which any two levels of any two factors meet, as far as they can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

Row = dict[str, object]
_TRIES = 12  # rows drawn for each row that is kept: the one with the most new pairs


def pairwise_rows(
    factors: Mapping[str, Sequence[object]], made_possible: Callable[[Row], Row], *, count: int, seed: int
) -> Iterator[Row]:
    """Yield `count` rows: the pairs are covered as soon as a greedy search can, and then once more.

    Parameters
    ----------
    factors
        Name -> levels.
    made_possible
        Returns the nearest row that can be: levels that contradict each other are replaced.
    count
        Rows wanted.
    seed
        Of the search, so that a row is found again by its number.
    """
    rng = np.random.default_rng(seed)
    impossible: set[frozenset[tuple[str, object]]] = set()
    wanted = set(_all_pairs(factors))
    for _ in range(count):
        if not wanted:
            wanted = set(_all_pairs(factors)) - impossible
        row, aim = _best_row(factors, made_possible, wanted, rng)
        found = _pairs_of(row)
        if aim not in found:  # the pair was aimed at and does not survive: no file can have it
            impossible.add(aim)
            wanted.discard(aim)
        wanted -= found
        yield row


def _best_row(
    factors: Mapping[str, Sequence[object]],
    made_possible: Callable[[Row], Row],
    wanted: set[frozenset[tuple[str, object]]],
    rng: np.random.Generator,
) -> tuple[Row, frozenset[tuple[str, object]]]:
    # Sorted, for sets have another order in every process.
    aim = min(wanted, key=lambda pair: sorted(map(repr, pair)))
    rows = []
    for _ in range(_TRIES):
        drawn: Row = {name: levels[int(rng.integers(len(levels)))] for name, levels in factors.items()}
        rows.append(made_possible(drawn | dict(aim)))
    best = max(rows, key=lambda row: (aim in _pairs_of(row), len(_pairs_of(row) & wanted)))
    return best, aim


def _pairs_of(row: Row) -> set[frozenset[tuple[str, object]]]:
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def _all_pairs(factors: Mapping[str, Sequence[object]]) -> Iterator[frozenset[tuple[str, object]]]:
    for (first, levels), (second, others) in combinations(factors.items(), 2):
        for level in levels:
            for other in others:
                yield frozenset({(first, level), (second, other)})
