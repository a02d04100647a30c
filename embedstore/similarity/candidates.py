"""The rows that may be among the nearest of some queries, by one pass over a scan.

Each query has a cosine that `k` rows are known to reach. A sample of the rows gives one, and every pair that passes it
may raise it: after a few blocks the rest of the pass is one comparison for each score. Where a scan cannot tell most
rows apart (near duplicates everywhere), the pairs of a query are given up, to be asked of a scan that can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedstore.similarity.scan import BlockScores, Floats, Rows, Scores

# (queries, rows) -> which of these pairs are left out; both arrays broadcast.
LeftOut = Callable[[Rows, Rows], npt.NDArray[np.bool_]]

_BLOCK_CELLS = 1 << 17  # scores at once, which stay in a core's cache with both planes of their product
_LEAST_ROWS, _MOST_ROWS = 512, 1 << 15


@dataclass(frozen=True, eq=False)
class Pairs:
    """Queries and rows whose cosine is between two numbers, (pairs,) each."""

    queries: Rows
    rows: Rows
    least: Floats
    most: Floats

    def __len__(self) -> int:
        return len(self.queries)

    def taken(self, some: npt.NDArray[np.bool_] | Rows) -> Pairs:
        """Return some of them."""
        return Pairs(self.queries[some], self.rows[some], self.least[some], self.most[some])

    def of_rows(self, numbers: Rows) -> Pairs:
        """Return them with the number of each row in place of its place."""
        return replace(self, rows=numbers[self.rows])

    def with_those(self, others: Pairs, queries: Rows) -> Pairs:
        """Return them and pairs of other queries, given by (n,) numbers, those of a query together."""
        others = replace(others, queries=queries[others.queries])
        both = Pairs(*(np.concatenate([getattr(self, name), getattr(others, name)]) for name in _FIELDS))
        return both.taken(np.argsort(both.queries, kind="stable"))


class Candidates:
    """Candidates of (count,) queries, more and more of them excluded.

    Parameters
    ----------
    count
        Queries.
    k
        How many rows are looked for.
    most
        Rows beyond which a query is given up.
    """

    def __init__(self, count: int, k: int, *, most: int) -> None:
        self.k = k
        self.most = most
        self.reached = np.full(count, -np.inf)
        self.given_up = np.zeros(count, bool)
        self._parts: list[Pairs] = []
        self._held, self._room = 0, 0

    def expect(self, sample: Scores, rows: Rows, left_out: LeftOut | None) -> None:
        """Learn from a sample of (n,) rows what the nearest reach, so that the first rows of a scan can be excluded."""
        everyone = np.arange(len(self.reached))[:, None]
        found = sample.of_rows(slice(0, len(rows)))
        hidden = None if left_out is None else left_out(everyone, rows)
        np.maximum(self.reached, found.surely_reached(self.k, hidden), out=self.reached)

    def scan(self, scores: Scores, rows: slice, left_out: LeftOut | None) -> None:
        """Add the pairs of some rows that may be among the nearest.

        Parameters
        ----------
        scores
            Of the queries.
        rows
            Of the scan.
        left_out
            Which pairs cannot be found, if any.
        """
        everyone = np.arange(len(self.reached))[:, None]
        for block in blocks(rows, len(self.reached)):
            found = scores.of_rows(block)
            if np.isneginf(self.reached).any():
                hidden = None if left_out is None else left_out(everyone, np.arange(block.start, block.stop))
                np.maximum(self.reached, found.surely_reached(self.k, hidden), out=self.reached)
            self._add(found, block.start, left_out)

    def join(self, other: Candidates) -> None:
        """Add the candidates of the same queries among other, later rows."""
        self._parts += other._parts
        self.given_up |= other.given_up
        np.maximum(self.reached, other.reached, out=self.reached)

    def pairs(self) -> Pairs:
        """Return the pairs that may be among the nearest, those of a query together and in order of their rows."""
        return self._excluded()

    def _add(self, found: BlockScores, start: int, left_out: LeftOut | None) -> None:
        queries, rows = found.that_may_reach(self.reached)
        if left_out is not None:
            kept = ~left_out(queries, rows + start)
            queries, rows = queries[kept], rows[kept]
        if not len(queries):
            return
        self._parts.append(Pairs(queries, rows + start, *found.of_pairs(queries, rows)))
        self._held += len(queries)
        if self._held > self._room:
            pairs = self._excluded()
            self._parts, self._held = [pairs], len(pairs)
            self._room = 2 * len(pairs) + len(self.reached) * max(self.k, 32)

    def _excluded(self) -> Pairs:
        """Raise what is reached, and return the pairs which still may reach it, in order of their queries."""
        if not self._parts:
            nothing = np.zeros(0, np.int64)
            return Pairs(nothing, nothing, np.zeros(0), np.zeros(0))
        pairs = Pairs(*(np.concatenate([getattr(part, name) for part in self._parts]) for name in _FIELDS))
        count = len(self.reached)
        pairs = pairs.taken(np.argsort(pairs.queries.astype(np.int16), kind="stable"))
        counts = np.bincount(pairs.queries, minlength=count)
        enough = counts >= self.k
        if enough.any():
            first = np.cumsum(counts) - counts
            width = int(counts.max())
            least = np.full((count, width), -np.inf)
            least[pairs.queries, np.arange(len(pairs)) - first[pairs.queries]] = pairs.least
            kth = np.partition(least, width - self.k, axis=1)[:, width - self.k]
            np.maximum(self.reached, kth, out=self.reached, where=enough)
        pairs = pairs.taken(pairs.most >= self.reached[pairs.queries])
        many = np.bincount(pairs.queries, minlength=count) > self.most
        if many.any():
            self.given_up |= many
            # Nothing reaches it: a query that is given up costs no more than its part of the scan.
            self.reached[many] = np.inf
            pairs = pairs.taken(~many[pairs.queries])
        return pairs


_FIELDS = ("queries", "rows", "least", "most")


def blocks(rows: slice, queries: int) -> Iterator[slice]:
    """Yield rows in blocks whose scores for so many queries stay in a cache."""
    step = min(max(_BLOCK_CELLS // max(1, queries), _LEAST_ROWS), _MOST_ROWS)
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))
