"""The store's speed: writing with fsync, loading against np.load, random rows, start-up of commands.

python benchmarks/store.py            200,000 vectors; needs 2 GB of disk in --folder
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from table import parse, show

from embedstore.identity import Identity
from embedstore.manifest import manifest_from_columns
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import open_store
from embedstore.store.writer import open_writer

DIM = 1152
IDENTITY = Identity("benchmark", "1", "none", {"preset": "pad", "size_px": 448}, "none", "float32", DIM)


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments = parse(parser)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = measure(Path(folder), arguments.rows, arguments.repeats)
    show(f"store of {arguments.rows:,} x {DIM} float16", rows, json_path=arguments.json)


def measure(folder: Path, count: int, repeats: int) -> list[dict[str, object]]:
    """Return one row per measurement."""
    root = folder / "s.store"
    megabytes = count * DIM * 2 / 1e6
    write_s = write(root, count)
    vectors = open_store(root).embeddings().vectors
    np.save(folder / "vectors.npy", vectors)
    ids = [f"image{row}" for row in np.random.default_rng(0).integers(0, count, 1000)]
    references, loads = side_by_side(
        lambda: np.load(folder / "vectors.npy"), lambda: open_store(root).embeddings(), repeats=repeats
    )
    ratio = statistics.median(load / reference for load, reference in zip(loads, references, strict=True))
    least = min(loads) / min(references)
    opening = [seconds(lambda: open_store(root)) for _ in range(repeats)]
    store = open_store(root)
    random = [seconds(lambda: store.select(ids)) for _ in range(repeats)]
    embed = [sys.executable, "-m", "cli.main"]
    helps = [seconds(lambda: run([*embed, "--help"])) for _ in range(repeats)]
    infos = [seconds(lambda: run([*embed, "info", str(root)])) for _ in range(repeats)]
    speed = f"{megabytes / write_s:,.0f} MB/s, {count / write_s:,.0f} rows/s"
    return [
        row("write with fsync", [write_s], speed, ""),
        row(
            "np.load of the same vectors",
            references,
            f"{megabytes / statistics.median(references):,.0f} MB/s",
            "",
        ),
        row(
            "open and load, every byte checked",
            loads,
            f"{ratio:.2f} x np.load; {least:.2f} x by minima",
            "<= 1.5 x np.load",
        ),
        row("  of which opening", opening, "", ""),
        row("1,000 random rows by id", random, "", ""),
        row("embed --help", helps, "", "<= 0.15 s"),
        row("embed info", infos, "", ""),
    ]


def side_by_side(
    first: Callable[[], object], second: Callable[[], object], *, repeats: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of both, taken in turn so that both see the same moods of the machine."""
    pairs = [(seconds(first), seconds(second)) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def row(what: str, taken_s: Sequence[float], figure: str, promise: str) -> dict[str, object]:
    """Return one line of the table."""
    return {
        "what": what,
        "seconds (median)": round(statistics.median(taken_s), 4),
        "seconds (min)": round(min(taken_s), 4),
        "figure": figure,
        "promise": promise,
    }


def write(root: Path, count: int) -> float:
    """Write a store of `count` rows and return the seconds."""
    names = [f"image{number}" for number in range(count)]
    manifest = manifest_from_columns({"image_id": names, "path": names}, source="benchmark")
    generator = np.random.default_rng(0)
    block = generator.standard_normal((256, DIM), dtype=np.float32)
    content = generator.integers(0, 256, (256, 32), dtype=np.uint8)
    with open_writer(root, IDENTITY, say=print) as writer:
        plan = writer.plan_part(
            manifest, dataset="benchmark", data_root="none", chunk_rows=256, dtype="float16"
        )
        started = time.perf_counter()
        for chunk in range(plan.chunks):
            start, stop = plan.bounds(chunk)
            writer.commit(plan, chunk, ChunkResult(block[: stop - start] + chunk, content[: stop - start]))
        return time.perf_counter() - started


def run(command: list[str]) -> None:
    """Run a command and throw its output away."""
    subprocess.run(command, check=True, capture_output=True)


def seconds(act: Callable[[], object]) -> float:
    """Return how long `act` takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
