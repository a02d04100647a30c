"""Exact search: milliseconds a query, alone and all against all, beside FAISS flat and a float32 product.

python benchmarks/search.py            190,000 vectors with the spectrum of an encoder; needs 4 GB of memory

Recall is that of a float64 scan. FAISS takes the number of threads that suits it best, of one and all.
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable

import faiss
import numpy as np
import torch
from table import parse, show

from embedstore.similarity.exact_search import ExactSearch

DIM = 1152
K = 10
ALL = 2048  # queries of all against all: the time for one is the same for the rest


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=190_000)
    parser.add_argument("--queries", type=int, default=32)
    arguments = parse(parser)
    vectors = like_an_encoder(arguments.rows)
    search = ExactSearch(vectors)
    wide = vectors.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    # From the stored vectors: single precision already exchanges neighbours that are next to equally near.
    queries = vectors[: max(ALL, arguments.queries)].astype(np.float32)
    expected = in_float64(vectors, queries[: arguments.queries])
    rows = [row("first queries", 1, *timed(lambda some: search.search(some, K)[0], queries[:3], 1), None)]
    started = time.perf_counter()
    search._coded  # noqa: B018, coded once and kept
    coded_s = time.perf_counter() - started
    print(f"coded in {coded_s:.1f} s")
    flat = faiss.IndexFlatIP(DIM)
    flat.add(wide)
    units = wide[: len(queries)].copy()
    ways: dict[str, tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]] = {
        "ours": (lambda some: search.search(some, K)[0], queries),
        "FAISS flat, one thread": (lambda some: faiss_search(flat, some, 1), units),
        "FAISS flat, all threads": (lambda some: faiss_search(flat, some, os.cpu_count() or 1), units),
        "float32 product and topk": (lambda some: product(wide, some), units),
    }
    for batch in (1, 64, ALL):
        for name, (ask, asked) in ways.items():
            some = asked[:ALL] if batch == ALL else asked[: arguments.queries * (1 if batch == 1 else 2)]
            milliseconds, found = timed(ask, some, batch)
            rows.append(row(name, batch, milliseconds, found, expected))
    show(f"exact search of {arguments.rows:,} x {DIM}, ten nearest", rows, json_path=arguments.json)


def like_an_encoder(rows: int) -> np.ndarray:
    """Draw (rows, DIM) float16: a common direction (mean cosine .7), a power-law spectrum, 800 clusters."""
    rng = np.random.default_rng(0)
    spread = (np.arange(1, DIM + 1) ** -0.6).astype(np.float32)
    spread[rng.choice(DIM, 6, replace=False)] *= 6
    common = rng.standard_normal(DIM).astype(np.float32)
    common *= 1.6 * np.linalg.norm(spread) / np.linalg.norm(common)
    centres = rng.standard_normal((800, DIM), dtype=np.float32) * spread * 0.7
    vectors = np.empty((rows, DIM), np.float16)
    for start in range(0, rows, 10_000):
        some = vectors[start : start + 10_000]
        noise = rng.standard_normal(some.shape, dtype=np.float32) * spread * 0.7
        some[:] = common + centres[rng.integers(0, 800, len(some))] + noise
    return vectors


def timed(
    ask: Callable[[np.ndarray], np.ndarray], queries: np.ndarray, batch: int
) -> tuple[float, np.ndarray]:
    """Return the median milliseconds a query, batch by batch, and what was found."""
    taken, found = [], []
    for start in range(0, len(queries), batch):
        some = queries[start : start + batch]
        started = time.perf_counter()
        found.append(ask(some))
        taken.append(1000 * (time.perf_counter() - started) / len(some))
    return statistics.median(taken), np.concatenate(found)


def row(
    name: str, batch: int, milliseconds: float, found: np.ndarray, expected: np.ndarray | None
) -> dict[str, object]:
    """Return a line of the table."""
    known = 0 if expected is None else min(len(found), len(expected))
    hits = (
        [len(set(found[at]) & set(expected[at])) / K for at in range(known)] if expected is not None else []
    )
    recall = f"{np.mean(hits):.3f}" if hits else ""
    return {"search": name, "queries at once": batch, "ms per query": milliseconds, "recall": recall}


def in_float64(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the ten nearest of each query by brute force."""
    cosines = np.empty((len(queries), len(vectors)))
    for start in range(0, len(vectors), 10_000):
        some = vectors[start : start + 10_000].astype(np.float64)
        cosines[:, start : start + 10_000] = (
            queries.astype(np.float64) @ (some / np.linalg.norm(some, axis=1)[:, None]).T
        )
    return np.argsort(-cosines, axis=1, kind="stable")[:, :K]


def faiss_search(index: faiss.Index, queries: np.ndarray, threads: int) -> np.ndarray:
    """Search an index of FAISS by so many threads."""
    faiss.omp_set_num_threads(threads)
    found: np.ndarray = index.search(queries, K)[1]
    return found


def product(wide: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Search by one product of single precision, some queries at a time."""
    vectors = torch.from_numpy(wide)
    pieces = [
        torch.topk(torch.from_numpy(some) @ vectors.T, K).indices
        for some in np.array_split(queries, len(queries) // 257 + 1)
    ]
    return torch.cat(pieces).numpy()


if __name__ == "__main__":
    main()
