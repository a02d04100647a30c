"""The nearest vectors by cosine, exactly, whatever the batch, the filter and the number of cores.

A scan proposes; the cosines of what may be among the nearest are computed in float64, each from its two vectors alone
and always in the same order, so that equal vectors have equal cosines. Of equals the earlier row comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError, require_whole_number
from embedstore.similarity.int8_scan import LARGEST_DIM, int8_scan, is_exact_here
from embedstore.similarity.plain_scan import PlainScan
from embedstore.similarity.scan import BlockScores, Floats, Rows, Scan

# Coding the vectors costs as much as a few dozen plain scans for one query.
_PLAIN_QUERIES = 8
_BATCH = 256
_BLOCK_CELLS = 1 << 21  # scores at once: 8 MB
_BLOCK_ROWS = 1 << 14
_PAIRS = 2048  # exact cosines at once: a few arrays of (pairs, dim) float64


class ExactSearch:
    """Vectors to be found.

    Parameters
    ----------
    vectors
        (n, dim) float16 or float32, finite. A vector without length has cosine 0 to everything.
    groups
        (n,) int64, or nothing: what `search` can leave out for a query, as the images of its patient.

    Examples
    --------
    >>> import numpy as np
    >>> corners = np.array([[1, 0], [0, 1], [1, 1], [2, 0]], np.float32)
    >>> rows, cosines = ExactSearch(corners).search(np.array([[3.0, 0.0]]), 3)
    >>> rows.tolist(), cosines.round(3).tolist()
    ([[0, 3, 2]], [[1.0, 1.0, 0.707]])
    """

    def __init__(self, vectors: npt.NDArray[np.floating], groups: Rows | None = None) -> None:
        self.vectors = vectors
        self.groups = groups
        self._asked = 0

    def __len__(self) -> int:
        return len(self.vectors)

    def search(
        self,
        queries: npt.NDArray[np.floating],
        k: int,
        *,
        among: Rows | None = None,
        outside: Rows | None = None,
        without: Rows | None = None,
    ) -> tuple[Rows, Floats]:
        """Return the `k` rows with the largest cosine to each query, largest first; of equals the earlier row.

        Parameters
        ----------
        queries
            (m, dim) of any length.
        k
            How many, at least 1.
        among
            (a,) int64 the rows that may be found, ascending; by default all.
        outside
            (m,) int64 the group of each query, whose rows it does not find; -1 for none.
        without
            (m,) int64 a row that each query does not find; -1 for none.

        Returns
        -------
        tuple
            (m, k) int64 rows and (m, k) float64 cosines; row -1 and cosine -1 where there are fewer.

        Raises
        ------
        UsageError
            If `k` is below 1, or `outside` is given where there are no groups.
        """
        require_whole_number("k", k)
        if k < 1:
            raise UsageError(f"k must be at least 1; found {k}")
        if outside is not None and self.groups is None:
            raise UsageError("outside needs the groups of the vectors")
        asked: Floats = np.asarray(queries, np.float64)
        self._asked += len(asked)
        found = np.full((len(asked), k), -1, np.int64), np.full((len(asked), k), -1.0)
        for start in range(0, len(asked), _BATCH):
            some = slice(start, start + _BATCH)
            batch = _Batch(
                self,
                asked[some],
                k,
                outside=None if outside is None else outside[some],
                without=None if without is None else without[some],
            )
            found[0][some], found[1][some] = batch.nearest(self._scan, among)
        return found

    def cosines(self, rows: Rows, queries: Floats, of_query: Rows) -> Floats:
        """Return the cosines, (p,) float64, of rows and queries of length 1 or 0, given by two (p,) numbers."""
        cosines = np.empty(len(rows))
        for start in range(0, len(rows), _PAIRS):
            some = slice(start, start + _PAIRS)
            vectors = self.vectors[rows[some]].astype(np.float64)
            lengths = _lengths(vectors)
            sums = np.multiply(vectors, queries[of_query[some]], out=vectors).sum(axis=1)
            cosines[some] = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
        return np.clip(cosines, -1, 1)

    def scores_in_float64(self, rows: Rows | slice, queries: Floats) -> BlockScores:
        """Return the cosines by a product in float64, off by less than 1e-12: for rows of which a scan excludes few."""
        vectors = self.vectors[rows].astype(np.float64)
        lengths, products = _lengths(vectors)[:, None], vectors @ queries.T
        values = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
        count, dim = queries.shape
        return BlockScores(values, np.zeros(count), np.ones(count), np.full(count, dim * 2.0**-51))

    @property
    def _scan(self) -> Scan:
        if self._asked <= _PLAIN_QUERIES or self.vectors.shape[1] > LARGEST_DIM or not is_exact_here():
            return PlainScan(self.vectors)
        return self._coded

    @cached_property
    def _coded(self) -> Scan:
        return int8_scan(self.vectors)


class _Batch:
    """Some queries, and the nearest rows that are known so far."""

    def __init__(
        self, search: ExactSearch, queries: Floats, k: int, *, outside: Rows | None, without: Rows | None
    ) -> None:
        lengths = _lengths(queries)[:, None]
        self.search = search
        self.queries = np.divide(queries, lengths, out=np.zeros_like(queries), where=lengths > 0)
        self.k = k
        self.outside = outside
        self.without = without
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.cosines = np.full((len(queries), k), -np.inf)

    def nearest(self, scan: Scan, among: Rows | None) -> tuple[Rows, Floats]:
        scores = scan.scores_of(self.queries)
        for block in self._blocks(among):
            self._add(block, scores.of_rows(block))
        return self.rows, np.where(self.rows < 0, -1.0, self.cosines)

    def _blocks(self, among: Rows | None) -> Iterator[Rows | slice]:
        step = min(_BLOCK_CELLS // max(1, len(self.queries)), _BLOCK_ROWS)
        count = len(self.search) if among is None else len(among)
        for start in range(0, count, step):
            stop = min(start + step, count)
            yield slice(start, stop) if among is None else among[start:stop]

    def _add(self, block: Rows | slice, scores: BlockScores) -> None:
        """Take what a block of rows adds to the nearest."""
        numbers = np.arange(block.start, block.stop) if isinstance(block, slice) else block
        at, query = scores.that_may_reach(self._reached(numbers, scores))
        # Widening the block costs as much as the cosines of half of its rows, one by one.
        if len(at) > max(len(numbers) // 2, len(self.queries) * max(8 * self.k, 64)):
            scores = self.search.scores_in_float64(block, self.queries)
            at, query = scores.that_may_reach(self._reached(numbers, scores))
        kept = ~self._left_out(numbers[at], query)
        rows, query = numbers[at[kept]], query[kept]
        self._merge(rows, query, self.search.cosines(rows, self.queries, query))

    def _reached(self, numbers: Rows, scores: BlockScores) -> Floats:
        """Return, (queries,), a cosine that k rows reach, of those before and those of the block."""
        known: Floats = self.cosines[:, -1]
        if scores.values.dtype == np.float32 and not np.isinf(known).any():
            return known
        everyone = np.arange(len(self.queries))
        left_out = (
            None if self.outside is self.without is None else self._left_out(numbers[:, None], everyone)
        )
        surely = scores.surely_reached(self.k, left_out)
        return np.maximum(known, surely, out=surely)

    def _left_out(self, rows: Rows, query: Rows) -> npt.NDArray[np.bool_]:
        """Return whether each query, by its number, may not find each row; both broadcast."""
        left_out = np.zeros(np.broadcast_shapes(rows.shape, query.shape), bool)
        if self.without is not None:
            left_out |= rows == self.without[query]
        if self.outside is not None and self.search.groups is not None:
            groups = self.outside[query]
            left_out |= (self.search.groups[rows] == groups) & (groups >= 0)
        return left_out

    def _merge(self, rows: Rows, query: Rows, cosines: Floats) -> None:
        count, k = self.rows.shape
        if not len(rows):
            return
        query = np.concatenate([np.repeat(np.arange(count), k), query])
        rows = np.concatenate([self.rows.ravel(), rows])
        cosines = np.concatenate([self.cosines.ravel(), cosines])
        order = np.lexsort((rows, -cosines, query))
        # Every query has at least the k entries that it had.
        first = np.searchsorted(query[order], np.arange(count))
        kept = order[first[:, None] + np.arange(k)]
        self.rows, self.cosines = rows[kept], cosines[kept]


def _lengths(vectors: Floats) -> Floats:
    """Return the length of each of (n, dim) vectors, a function of that vector alone."""
    lengths: Floats = np.sqrt((vectors * vectors).sum(axis=1))
    return lengths
