"""Exact search: milliseconds a query, alone and all against all, beside FAISS flat and a float32 product.

python benchmarks/search.py            190,000 vectors with the spectrum of an encoder; needs 4 GB of memory

Recall is that of a float64 scan. FAISS takes the batch and the number of threads that suit it best, of one and all.
Ways are timed in turns, so that what else the machine does meets all of them; the ratio is of medians. Memory is the
peak of a process of its own that is given the float16 vectors and searches them, beyond what its libraries take.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path

import faiss
import numpy as np
import torch
from table import parse, show

from embedstore.similarity.exact_search import ExactSearch

DIM = 1152
K = 10
ALL = 1024  # queries of all against all: the time for one is the same for the rest
TURNS = 3
CORES = os.cpu_count() or 1

Ask = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=190_000)
    parser.add_argument("--queries", type=int, default=16, help="queries that are asked one by one")
    parser.add_argument(
        "--peak", choices=["ours", "faiss"], help="print the peak of one way (used by the script)"
    )
    arguments = parse(parser)
    if arguments.peak:
        print(json.dumps(peak_mb(arguments.peak, arguments.rows)))
        return
    vectors = like_an_encoder(arguments.rows)
    search = ExactSearch(vectors)
    # From the stored vectors: single precision already exchanges neighbours that are next to equally near.
    queries = vectors[:: max(1, len(vectors) // ALL)][:ALL].astype(np.float32)
    expected = in_float64(vectors, queries[: arguments.queries])
    first, _ = milliseconds(lambda some: search.search(some, K)[0], queries[:1])
    started = time.perf_counter()
    search._coded  # noqa: B018, coded once and kept
    print(f"coded in {time.perf_counter() - started:.1f} s")
    search._plain_work = np.inf  # as after many queries
    rows: list[dict[str, object]] = [
        {
            "search": "ours, before anything is coded",
            "queries at once": 1,
            "ms per query": first,
            "recall": "",
        }
    ]
    wide = vectors.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(wide)
    taken = in_turns(one_by_one(search, flat, wide), queries[: arguments.queries], expected, at_once=1)
    batches = in_turns(all_at_once(search, flat, wide), queries, expected, at_once=ALL)
    rows += [*taken, filtered(vectors, queries[: arguments.queries]), *batches]
    show(f"exact search of {arguments.rows:,} x {DIM}, ten nearest", rows, json_path=arguments.json)
    for what, of in (("alone", taken), ("all against all", batches)):
        best = min(float(str(row["ms per query"])) for row in of if str(row["search"]).startswith("FAISS"))
        print(f"{what}: {best / float(str(of[0]['ms per query'])):.2f} x as fast as FAISS flat at its best")
    peaks = {way: peak_apart(way, arguments.rows) for way in ("ours", "faiss")}
    print(
        f"peak: ours {peaks['ours']:,.0f} MB, FAISS flat {peaks['faiss']:,.0f} MB, "
        f"{peaks['ours'] / peaks['faiss']:.2f} x"
    )


def filtered(vectors: np.ndarray, queries: np.ndarray) -> dict[str, object]:
    """Return the line of queries that find every second row only, and none of a patient of three rows."""
    groups = np.arange(len(vectors)) // 3
    among, own = np.arange(0, len(vectors), 2), groups[:: max(1, len(vectors) // ALL)][: len(queries)]
    search = ExactSearch(vectors, groups)
    hits, taken = [], []
    for query, group in zip(queries, own, strict=True):
        kept = among[groups[among] != group]
        expected = kept[in_float64(vectors[kept], query[None])[0]]
        spent, found = milliseconds(
            lambda one, g=group: search.search(one, K, among=among, outside=np.array([g]))[0], query[None]
        )
        taken.append(spent)
        hits.append(len({*found[0].tolist()} & {*expected.tolist()}) / K)
    return {
        "search": "ours, half of the rows and a patient left out",
        "queries at once": 1,
        "ms per query": statistics.median(taken),
        "recall": f"{np.mean(hits):.3f}",
    }


def one_by_one(search: ExactSearch, flat: faiss.Index, wide: np.ndarray) -> dict[str, Ask]:
    """Return the ways to ask for one query."""
    return {
        "ours": lambda some: search.search(some, K)[0],
        "FAISS flat, one thread": lambda some: faiss_search(flat, unit(some), 1),
        "FAISS flat, all threads": lambda some: faiss_search(flat, unit(some), CORES),
        "float32 product and topk": lambda some: product(wide, unit(some)),
    }


def all_at_once(search: ExactSearch, flat: faiss.Index, wide: np.ndarray) -> dict[str, Ask]:
    """Return the ways to ask for many queries."""
    ways: dict[str, Ask] = {"ours": lambda some: search.search(some, K)[0]}
    for batch in (256, ALL):
        for threads in sorted({1, CORES}):
            name = f"FAISS flat, {threads} thread{'s' * (threads > 1)}, {batch:,} at a time"

            def ask(some: np.ndarray, batch: int = batch, threads: int = threads) -> np.ndarray:
                parts = [unit(some[start : start + batch]) for start in range(0, len(some), batch)]
                return np.concatenate([faiss_search(flat, part, threads) for part in parts])

            ways[name] = ask
    ways["float32 product and topk"] = lambda some: product(wide, unit(some))
    return ways


def in_turns(
    ways: Mapping[str, Ask], queries: np.ndarray, expected: np.ndarray, *, at_once: int
) -> list[dict[str, object]]:
    """Ask in every way, in turns, and return a line of the table for each."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(TURNS):
        for name, ask in ways.items():
            parts = []
            for start in range(0, len(queries), at_once):
                spent, rows = milliseconds(ask, queries[start : start + at_once])
                taken[name].append(spent)
                parts.append(rows)
            found[name] = np.concatenate(parts)
    return [
        {
            "search": name,
            "queries at once": at_once,
            "ms per query": statistics.median(taken[name]),
            "recall": f"{recall(found[name], expected):.3f}",
        }
        for name in ways
    ]


def milliseconds(ask: Ask, queries: np.ndarray) -> tuple[float, np.ndarray]:
    """Return milliseconds a query, and what was found."""
    started = time.perf_counter()
    found = ask(queries)
    return 1000 * (time.perf_counter() - started) / len(queries), found


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the share of the ten nearest that were found, of the queries whose nearest are known."""
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, expected, strict=False)]))


def peak_apart(way: str, rows: int) -> float:
    """Return the peak of a way in a process of its own, in MB."""
    command = [sys.executable, __file__, "--peak", way, "--rows", str(rows)]
    return float(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def peak_mb(way: str, rows: int) -> float:
    """Return the peak of loaded vectors, what is made of them, and a search, in MB."""
    small = like_an_encoder(2_000)
    ask_of(way, small)(small[:256].astype(np.float32))
    before = status_mb("VmRSS")
    vectors = like_an_encoder(rows)
    # Linux: forget the peak of making the vectors.
    Path("/proc/self/clear_refs").write_text("5")
    ask_of(way, vectors)(vectors[:256].astype(np.float32))
    return status_mb("VmHWM") - before


def ask_of(way: str, vectors: np.ndarray) -> Ask:
    """Prepare a way to search float16 vectors, with as little memory as it can."""
    if way == "ours":
        search = ExactSearch(vectors)
        search._plain_work = np.inf
        return lambda some: search.search(some, K)[0]
    flat = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), 10_000):
        flat.add(unit(vectors[start : start + 10_000].astype(np.float32)))
    return lambda some: faiss_search(flat, unit(some), CORES)


def status_mb(name: str) -> float:
    """Return a line of Linux's own account of the process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1e3


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length one in single precision."""
    units: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


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
