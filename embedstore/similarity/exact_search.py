"""The nearest vectors by cosine, exactly, whatever the batch, the filter and the number of cores.

A scan proposes; the cosines of what may be among the nearest are computed in float64, each from its two vectors alone
and always in the same order, so that equal vectors have equal cosines. Of equals the earlier row comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError, require_whole_number
from embedstore.similarity.candidates import Candidates
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
# Candidates of a query from which on a product in float64 costs less than their cosines, one by one.
_LEAST_LIMIT = 64
_LIMIT_SHARE = 64
_MOST_PAIRS = 1 << 22  # candidates at once: 130 MB


class ExactSearch:
    """Vectors to be found.

    Parameters
    ----------
    vectors
        (n, dim) float16 or float32, finite. A vector without length has cosine 0 to everything.
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

    def __init__(
        self, vectors: npt.NDArray[np.floating], groups: Rows | None = None, *, unit: bool = False
    ) -> None:
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
        search, count = self.search, len(self.queries)
        size = len(search) if self.among is None else len(self.among)
        scan, threads = search.scan
        limit = max(_LEAST_LIMIT, 8 * self.k, size // _LIMIT_SHARE)
        unclear = self._ask(scan, np.arange(count), limit=limit, threads=threads)
        if len(unclear):
            self._ask(WideScan(search.vectors, search.unit), unclear, limit=size, threads=1)

    def _ask(self, scan: Scan, which: Rows, *, limit: int, threads: int) -> Rows:
        """Answer some queries by a scan, and return those that it leaves unclear."""
        if self.among is not None:
            scan = scan.taken(self.among)
        # Where there are few queries, threads share the rows.
        by_query = len(which) >= threads * _QUERIES_OF_A_THREAD
        step = -(-len(which) // threads) if by_query else len(which)
        step = max(1, min(_BATCH, step, _MOST_PAIRS // max(1, limit)))
        batches = [which[start : start + step] for start in range(0, len(which), step)]
        if by_query:
            unclear = on_threads(lambda some: self._batch(scan, some, limit, 1), batches, threads=threads)
        else:
            unclear = [self._batch(scan, some, limit, threads) for some in batches]
        return np.concatenate([np.zeros(0, np.int64), *unclear])

    def _batch(self, scan: Scan, which: Rows, limit: int, threads: int) -> Rows:
        queries: Floats = self.queries[which].astype(np.float64)
        if not self.search.unit:
            lengths = lengths_of(queries)[:, None]
            np.divide(queries, lengths, out=queries, where=lengths > 0)
        left_out = _LeftOut(self, which) if self.outside is not self.without else None

        def scanned(rows: slice) -> Candidates:
            candidates = Candidates(len(which), self.k, limit=limit)
            candidates.scan(scan.scores_of(queries), rows, left_out)
            return candidates

        size = len(self.search) if self.among is None else len(self.among)
        step = max(_ROWS_OF_A_THREAD, -(-size // threads))
        pieces = [slice(start, min(start + step, size)) for start in range(0, max(size, 1), step)]
        candidates, *others = on_threads(scanned, pieces, threads=threads)
        for other in others:
            candidates.join(other)
        pairs = candidates.pairs()
        if self.among is not None:
            pairs = pairs.of_rows(self.among)
        unit = self.search.unit
        self.rows[which], self.cosines[which] = nearest_of(
            pairs, self.search.vectors, queries, self.k, unit=unit
        )
        return which[candidates.given_up]


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """What some queries of a question cannot find."""

    question: _Question
    which: Rows

    def __call__(self, queries: Rows, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return whether each query cannot find each row; both are numbers of the scan, and broadcast."""
        asked, which = self.question, self.which[queries]
        if asked.among is not None:
            rows = asked.among[rows]
        left_out = np.zeros(np.broadcast_shapes(rows.shape, queries.shape), bool)
        if asked.without is not None:
            left_out |= rows == asked.without[which]
        if asked.outside is not None and asked.search.groups is not None:
            groups = asked.outside[which]
            left_out |= (asked.search.groups[rows] == groups) & (groups >= 0)
        return left_out
