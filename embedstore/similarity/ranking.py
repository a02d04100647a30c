"""Pairs of a query and a row -> the nearest rows of each query, by cosines in float64 that depend on nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.similarity.candidates import Pairs
from embedstore.similarity.scan import Floats, Rows, lengths_of

_AT_ONCE = 64  # vectors, widened in a core's cache
# Numbers of float16 are whole multiples of this, those of a query on this grid too.
GRID = 2.0**-24


def nearest_of(
    pairs: Pairs, vectors: npt.NDArray[np.floating], queries: Floats, k: int, *, unit: bool
) -> tuple[Rows, Floats]:
    """Return the `k` nearest rows of each query and their cosines, (m, k), largest first, of equals the earlier row.

    Parameters
    ----------
    pairs
        In order of their queries, those of a query in order of their rows.
    vectors
        (n, dim) float16 or float32.
    queries
        (m, dim) of length 1 or 0.
    k
        How many; row -1 and cosine -1 where there are fewer.
    unit
        As `embedstore.similarity.exact_search.ExactSearch`.
    """
    counts = np.bincount(pairs.queries, minlength=len(queries))
    first = np.cumsum(counts) - counts
    if unit and vectors.dtype == np.float16 and _on_grid(queries):
        cosines = _whole_cosines(pairs.rows, vectors, queries, counts)
    else:
        cosines = _cosines(pairs, vectors, queries, unit=unit)
    width = max(k, int(counts.max(initial=0)))
    table = np.full((len(queries), width), -np.inf)
    rows = np.full((len(queries), width), -1, np.int64)
    place = np.arange(len(pairs)) - first[pairs.queries]
    table[pairs.queries, place], rows[pairs.queries, place] = cosines, pairs.rows
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    nearest = np.take_along_axis(rows, order, 1)
    return nearest, np.where(nearest < 0, -1.0, np.take_along_axis(table, order, 1))


def _cosines(pairs: Pairs, vectors: npt.NDArray[np.floating], queries: Floats, *, unit: bool) -> Floats:
    """Return the cosine of each pair, (pairs,), each sum in the same order."""
    cosines = np.empty(len(pairs))
    for start in range(0, len(pairs), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        wide = vectors[pairs.rows[some]].astype(np.float64)
        lengths = np.ones(len(wide)) if unit else lengths_of(wide)
        sums = np.multiply(wide, queries[pairs.queries[some]], out=wide).sum(axis=1)
        cosines[some] = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    return cosines if unit else np.clip(cosines, -1, 1)


def _whole_cosines(rows: Rows, vectors: npt.NDArray[np.floating], queries: Floats, counts: Rows) -> Floats:
    """Return the cosine of each pair, (pairs,), where both factors are on the grid.

    All sums are whole multiples of ``GRID**2`` below ``2**53`` of them, exact in any order: a product may do it.
    """
    import torch

    dim = queries.shape[1]
    cosines, asked = torch.empty(len(rows), dtype=torch.float64), torch.from_numpy(queries)
    # Widened by way of single precision, which is much faster than at once, and into memory that is there.
    half, single, double = (
        torch.empty((_AT_ONCE, dim), dtype=kind) for kind in (torch.float16, torch.float32, torch.float64)
    )
    stop = 0
    for query, count in enumerate(counts.tolist()):
        start, stop = stop, stop + count
        for first in range(start, stop, _AT_ONCE):
            some = slice(first, min(first + _AT_ONCE, stop))
            size = some.stop - first
            np.take(vectors, rows[some], axis=0, out=half[:size].numpy(), mode="clip")
            wide = double[:size].copy_(single[:size].copy_(half[:size]))
            torch.mv(wide, asked[query], out=cosines[some])
    values: Floats = cosines.numpy()
    return values


def _on_grid(queries: Floats) -> bool:
    steps = queries / GRID
    return bool((np.abs(steps) <= 1 / GRID).all() and np.array_equal(steps, np.rint(steps)))
