"""The nearest vectors by cosine, exactly, whatever the batch, the filter and the number of cores.

A scan proposes; the cosines of what may be among the nearest are computed in float64, each from its two vectors alone
and always in the same order, so that equal vectors have equal cosines. Of equals the earlier row comes first.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError, require_whole_number
from embedstore.similarity.candidates import Candidates, LeftOut, Pairs
from embedstore.similarity.int8_scan import DIMS, int8_scan, is_exact_here
from embedstore.similarity.plain_scan import PlainScan, WideScan
from embedstore.similarity.ranking import nearest_of
from embedstore.similarity.scan import Floats, Rows, Scan, lengths_of
from embedstore.similarity.threads import on_threads, thread_count

_BATCH = 128
# Processor time for a row, in microseconds: of coding it, of reading it for a batch, of its product with a query.
_CODING, _READING, _PRODUCT = 10.0, 3.0, 0.05
_QUERIES_OF_A_THREAD = 32  # of fewer, the product is slower
_ROWS_OF_A_THREAD = 4096
_SAMPLE = 1024
_MOST_PAIRS = 1 << 22  # candidates at once: 130 MB
# From so many candidates of a query on, a product in float64 may cost less than their cosines, one by one: microseconds
# of a row that is widened, of its product with a query, and of a cosine.
_CROWD = 256
_WIDENED, _WIDE_PRODUCT, _COSINE = 2.5, 0.04, 3.0


class ExactSearch:
    """Vectors to be found.

    Parameters
    ----------
    vectors
        (n, dim) float16 or float32, finite: an array, or rows in files (`embedstore.similarity.mapped_rows`). A vector
        without length has cosine 0 to everything.
    groups
        (n,) int64, or nothing: what `search` can leave out for a query, as the images of its patient.
    unit
        Whether the vectors and the queries have a length of 1 but for their rounding, or of 0, so that their product is
        the cosine as it is.

    Examples
    --------
    >>> import numpy as np
    >>> corners = np.array([[1, 0], [0, 1], [1, 1], [2, 0]], np.float32)
    >>> rows, cosines = ExactSearch(corners).search(np.array([[3.0, 0.0]]), 3)
    >>> rows.tolist(), cosines.round(3).tolist()
    ([[0, 3, 2]], [[1.0, 1.0, 0.707]])
    """

    def __init__(self, vectors: Any, groups: Rows | None = None, *, unit: bool = False) -> None:
        self.vectors = vectors
        self.groups = groups
        self.unit = unit
        self._plain_work = 0.0

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
            (m,) int64 the group of each query, whose rows it does not find, or (m, several); -1 for none.
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
        self._plain_work += _READING * -(-len(queries) // _BATCH) + _PRODUCT * len(queries)
        question = _Question(self, np.asarray(queries), k, among=among, outside=outside, without=without)
        question.answer()
        return question.rows, question.cosines

    @property
    def scan(self) -> tuple[Scan, int]:
        """What proposes, and on how many threads: a plain product until coding the vectors would have paid."""
        if self._plain_work <= _CODING or self.vectors.shape[1] not in DIMS or not is_exact_here():
            return PlainScan(self.vectors, self.unit), 1
        return self._coded, thread_count()

    @cached_property
    def _coded(self) -> Scan:
        return int8_scan(self.vectors, unit=self.unit)


class _Question:
    """Queries, what they may find, and what they have found; arguments as `ExactSearch.search`."""

    def __init__(
        self,
        search: ExactSearch,
        queries: npt.NDArray[np.floating],
        k: int,
        *,
        among: Rows | None,
        outside: Rows | None,
        without: Rows | None,
    ) -> None:
        self.search, self.queries, self.k = search, queries, k
        self.among, self.outside, self.without = among, outside, without
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.cosines = np.full((len(queries), k), -1.0)

    def answer(self) -> None:
        """Fill in rows and cosines."""
        search = self.search
        scan, threads = search.scan
        if self.among is not None:
            scan = scan.taken(self.among)
        size = len(search) if self.among is None else len(self.among)
        count = len(self.queries)
        # Few queries have room for all the rows that the first blocks cannot exclude.
        sample = np.arange(0, size if count > _QUERIES_OF_A_THREAD else 0, max(1, size // _SAMPLE))
        sampled = (scan.taken(sample), sample)
        # Where there are few queries, threads share the rows.
        by_query = count >= threads * _QUERIES_OF_A_THREAD
        step = max(1, min(_BATCH, -(-count // threads) if by_query else count))
        batches = [slice(start, min(start + step, count)) for start in range(0, count, step)]
        if by_query:
            on_threads(lambda some: self._batch(scan, sampled, some, 1), batches, threads=threads)
        else:
            for some in batches:
                self._batch(scan, sampled, some, threads)

    def _batch(self, scan: Scan, sampled: tuple[Scan, Rows], some: slice, threads: int) -> None:
        """Fill in what some queries find."""
        search, which = self.search, np.arange(some.start, some.stop)
        queries: Floats = self.queries[some].astype(np.float64)
        if not search.unit:
            lengths = lengths_of(queries)[:, None]
            np.divide(queries, lengths, out=queries, where=lengths > 0)
        left_out = self._left_out(which, self.among)

        def scanned(rows: slice) -> Candidates:
            candidates = Candidates(len(which), self.k, most=_MOST_PAIRS // len(which))
            if len(sampled[1]):
                candidates.expect(sampled[0].scores_of(queries), sampled[1], left_out)
            candidates.scan(scan.scores_of(queries), rows, left_out)
            return candidates

        size = len(search) if self.among is None else len(self.among)
        step = max(_ROWS_OF_A_THREAD, -(-size // threads))
        pieces = [slice(start, min(start + step, size)) for start in range(0, max(size, 1), step)]
        candidates, *others = on_threads(scanned, pieces, threads=threads)
        for other in others:
            candidates.join(other)
        pairs = candidates.pairs()
        if self.among is not None:
            pairs = pairs.of_rows(self.among)
        pairs = self._told_apart(pairs, candidates.given_up, which, queries)
        self.rows[some], self.cosines[some] = nearest_of(
            pairs, search.vectors, queries, self.k, unit=search.unit
        )

    def _told_apart(
        self, pairs: Pairs, given_up: npt.NDArray[np.bool_], which: Rows, queries: Floats
    ) -> Pairs:
        """Exclude by a product in float64 what a cheaper one could not, where that costs less than what it saves."""
        counts = np.bincount(pairs.queries, minlength=len(which))
        crowded = np.flatnonzero((counts > max(_CROWD, 4 * self.k)) & ~given_up)
        if len(crowded):
            theirs = np.isin(pairs.queries, crowded)
            rows = np.unique(pairs.rows[theirs])
            if len(rows) * (_WIDENED + _WIDE_PRODUCT * len(crowded)) < _COSINE * np.count_nonzero(theirs):
                left = self._in_float64(rows, crowded, which, queries)
                pairs = pairs.taken(~theirs).with_those(left, crowded)
        everyone = np.arange(len(self.search)) if self.among is None else self.among
        lost = np.flatnonzero(given_up)
        few = max(1, _MOST_PAIRS // max(1, len(everyone)))
        for start in range(0, len(lost), few):
            some = lost[start : start + few]
            pairs = pairs.with_those(self._in_float64(everyone, some, which, queries), some)
        return pairs

    def _in_float64(self, rows: Rows, some: Rows, which: Rows, queries: Floats) -> Pairs:
        """Return what a product in float64 leaves of (n,) rows for some of the queries, which count from 0."""
        candidates = Candidates(len(some), self.k, most=len(rows))
        scan = WideScan(self.search.vectors, self.search.unit, rows)
        left_out = self._left_out(which[some], rows)
        candidates.scan(scan.scores_of(queries[some]), slice(0, len(rows)), left_out)
        return candidates.pairs().of_rows(rows)

    def _left_out(self, which: Rows, numbers: Rows | None) -> LeftOut | None:
        """Return what queries cannot find, of rows that have these numbers."""
        if self.outside is None and self.without is None:
            return None

        def left_out(queries: Rows, rows: Rows) -> npt.NDArray[np.bool_]:
            rows = rows if numbers is None else numbers[rows]
            asked = which[queries]
            hidden = np.zeros(np.broadcast_shapes(rows.shape, asked.shape), bool)
            if self.without is not None:
                hidden |= rows == self.without[asked]
            if self.outside is not None and self.search.groups is not None:
                own = self.search.groups[rows]
                for groups in np.atleast_2d(self.outside.T):
                    hidden |= (own == groups[asked]) & (groups[asked] >= 0)
            return hidden

        return left_out
