"""Export and import: seconds and memory, and random rows of an HDF5 export beside contiguous and chunked files.

python benchmarks/handover.py            100,000 vectors; needs 4 GB of disk in --folder
"""

from __future__ import annotations

import resource
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
from store import DIM, write
from table import parse, show

from embedstore.exchange.export import export_store
from embedstore.exchange.import_store import ImportOptions, import_vectors

READ_ROWS = 2000
REPEATS = 5


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments = parse(parser)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = measure(Path(folder), arguments.rows)
    show(f"hand-over of {arguments.rows:,} x {DIM}", rows, json_path=arguments.json)


def measure(folder: Path, count: int) -> list[dict[str, object]]:
    """Return one row per measurement."""
    write(folder / "s.store", count)
    jobs = [(export, ("h5", "npz", "parquet", "csv")), (import_again, ("h5", "npz", "parquet"))]
    rows = [
        alone(f"{job.__name__} .{suffix}", job, folder, f"out.{suffix}")
        for job, suffixes in jobs
        for suffix in suffixes
    ]
    with h5py.File(folder / "out.h5") as file, h5py.File(folder / "chunked.h5", "w") as chunked:
        vectors = file["vectors"][:]
        chunked.create_dataset("vectors", data=vectors, chunks=True)
        with h5py.File(folder / "contiguous.h5", "w") as contiguous:
            contiguous["vectors"] = vectors
    del vectors
    for name in ("out.h5", "contiguous.h5", "chunked.h5"):
        best = min(random_rows(folder / name, count) for _ in range(REPEATS))
        rows.append({"what": f"{READ_ROWS:,} random rows of {name}", "seconds": best, "peak GB": ""})
    return rows


def random_rows(path: Path, count: int) -> float:
    """Return the seconds that random rows take, one after the other, the file just opened."""
    chosen = np.random.default_rng(0).integers(0, count, READ_ROWS)
    started = time.perf_counter()
    with h5py.File(path) as file:
        vectors = file["vectors"]
        for row in chosen:
            vectors[row]
    return time.perf_counter() - started


def alone(what: str, run: Callable[[Path, str], None], folder: Path, name: str) -> dict[str, object]:
    """Return seconds and peak memory of a call in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        seconds, peak = pool.apply(watched, (run, folder, name))
    return {"what": what, "seconds": seconds, "peak GB": peak}


def watched(run: Callable[[Path, str], None], folder: Path, name: str) -> tuple[float, float]:
    """Run, and return seconds and the peak memory of this process in GB."""
    started = time.perf_counter()
    run(folder, name)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def export(folder: Path, name: str) -> None:
    """Export the store."""
    export_store(folder / "s.store", folder / name)


def import_again(folder: Path, name: str) -> None:
    """Import an export again."""
    import_vectors(
        folder / name,
        folder / f"{name}.store",
        declare={"encoder": "benchmark"},
        options=ImportOptions(id_column="image_id"),
    )


if __name__ == "__main__":
    main()
