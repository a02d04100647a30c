"""A million vectors by lists: time to make them, memory, recall, one query, batches and filters; exact ways beside.

python benchmarks/search_lists.py                 1,000,000 x 1152 float16: 2.3 GB of disk, about 10 minutes on 2 cores
python benchmarks/search_lists.py --no-flat       without FAISS flat, which takes 4.6 GB of memory

The vectors lie in files, as a store's do, and are mapped: memory is the peak of this process beyond what its libraries
take, while lists are made and written, and while they are asked. Recall is that of the certified exact search over the
same files, whose own memory does not count.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from search import DIM, K, faiss_search, like_an_encoder, status_mb, unit
from table import parse, show

from embedstore.similarity.list_search import (
    ListSearch,
    build_lists,
    open_lists,
    probe_counts,
    row_checksums,
    write_lists,
)
from embedstore.similarity.mapped_rows import MappedRows, RowFile

FILE_ROWS = 4096
QUERIES, BATCH = 48, 256
TURNS = 3


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--flat", action=BooleanOptionalAction, default=True)
    parser.add_argument("--folder", type=Path, help="where the files are written  [default: a temporary one]")
    arguments = parse(parser)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        vectors = written(Path(folder), arguments.rows)
        every = np.arange(arguments.rows)
        before = status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        started = time.perf_counter()
        file = Path(folder) / "lists.faiss"
        write_lists(build_lists(vectors, every), file)
        built, peak_made = time.perf_counter() - started, status_mb("VmHWM") - before
        checksums = np.concatenate([row_checksums(vectors[slice(at, at + 16_384)]) for at in every[::16_384]])
        groups = every // 3
        some = np.sort(np.random.default_rng(1).permutation(every)[:QUERIES])
        queries = vectors[some].astype(np.float32)
        started = time.perf_counter()
        exact = ListSearch(open_lists(file), vectors, groups).exact
        expected, _ = exact.search(queries, K)
        of_exact = 1000 * (time.perf_counter() - started) / QUERIES
        half = every[::2]
        kept, _ = exact.search(queries, K, among=half, outside=groups[some])
        for probes in probe_counts(open_lists(file).nlist):
            lists = ListSearch(open_lists(file), vectors, groups, probes=probes, checksums=checksums)
            found = share(lists.search(queries, K)[0], expected)
            if found >= arguments.recall:
                break
        filtered = share(lists.search(queries, K, among=half, outside=groups[some])[0], kept)
        # What exact search took is freed, or not, as the allocator likes.
        held = status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        batch = vectors[np.sort(np.random.default_rng(2).permutation(every)[:BATCH])].astype(np.float32)
        rows = [
            line("lists", 1, timed(lambda one: lists.search(one, K), queries), found),
            line(
                "lists, half left out and the own patient",
                1,
                of_filter(lists, queries, half, groups[some]),
                filtered,
            ),
            line("lists", BATCH, timed(lambda many: lists.search(many, K), batch, at_once=BATCH), ""),
            line("exact search, certified, from the files", QUERIES, of_exact, 1.0),
        ]
        peak_asked = status_mb("VmHWM") - held
        rows.append(
            line("NumPy, float32 in blocks, from the files", 1, timed(by_numpy(vectors), queries[:4]), "")
        )
        if arguments.flat:
            flat = faiss.IndexFlatIP(DIM)
            for at in range(0, arguments.rows, FILE_ROWS):
                flat.add(unit(vectors[slice(at, at + FILE_ROWS)].astype(np.float32)))
            for threads in sorted({1, faiss.omp_get_max_threads()}):
                spent = timed(lambda one, t=threads: faiss_search(flat, unit(one), t), queries[:16])
                rows.append(line(f"FAISS flat, {threads} thread{'s' * (threads > 1)}", 1, spent, ""))
        show(f"{arguments.rows:,} x {DIM}, ten nearest", rows, json_path=arguments.json)
        print(
            f"made in {built:.0f} s: {lists.index.nlist:,} lists, {lists.probes} looked at, file "
            f"{file.stat().st_size / 1e9:.2f} GB; peak while made "
            f"{peak_made:,.0f} MB, while asked {peak_asked:,.0f} MB more"
        )


def written(folder: Path, rows: int) -> MappedRows:
    """Write vectors like an encoder's into files, and return them mapped."""
    files = []
    drawn = like_an_encoder(min(rows, 100_000))
    rng = np.random.default_rng(3)
    for start in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - start)
        # Further rows lie near those that were drawn: drawing a million anew would take most of the time.
        some = drawn[rng.integers(0, len(drawn), count)].astype(np.float32)
        some += rng.standard_normal(some.shape, dtype=np.float32) * (0.5 * some.std())
        path = folder / f"{start}.f16"
        some.astype(np.float16).tofile(path)
        files.append(RowFile(str(path), count))
    return MappedRows(files, DIM, np.dtype(np.float16))


def by_numpy(vectors: MappedRows) -> Callable[[np.ndarray], object]:
    """Return the plain way: cosines of all rows, block by block."""

    def ask(query: np.ndarray) -> object:
        cosines = []
        for start in range(0, len(vectors), FILE_ROWS):
            some = vectors[slice(start, min(start + FILE_ROWS, len(vectors)))].astype(np.float32)
            cosines.append((some @ query[0]) / np.sqrt(np.einsum("ij,ij->i", some, some)))
        every = np.concatenate(cosines)
        return np.argpartition(-every, K)[:K]

    return ask


def timed(ask: Callable[[np.ndarray], object], queries: np.ndarray, *, at_once: int = 1) -> float:
    """Return milliseconds a query: the median over all asks."""
    taken = []
    for _ in range(TURNS):
        for start in range(0, len(queries), at_once):
            started = time.perf_counter()
            ask(queries[start : start + at_once])
            taken.append(1000 * (time.perf_counter() - started) / at_once)
    return statistics.median(taken)


def of_filter(lists: ListSearch, queries: np.ndarray, among: np.ndarray, groups: np.ndarray) -> float:
    """Return milliseconds a query that leaves rows and a patient out."""
    taken = []
    for place, query in enumerate(queries):
        started = time.perf_counter()
        lists.search(query[None], K, among=among, outside=groups[place : place + 1])
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def share(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the share of the expected rows that were found."""
    return float(
        np.mean([len({*a} & {*b}) / K for a, b in zip(found.tolist(), expected.tolist(), strict=True)])
    )


def line(way: str, at_once: int, spent: float, found: float | str) -> dict[str, object]:
    """Return a row of the table."""
    return {
        "search": way,
        "queries at once": at_once,
        "ms per query": spent,
        "recall": found if isinstance(found, str) else f"{found:.3f}",
    }


if __name__ == "__main__":
    main()
