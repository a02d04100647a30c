"""How long a changed table takes to become a revision of a store, and how long it takes to see that nothing changed.

python benchmarks/revise.py           147,218 rows revised; 40,561 files looked at
"""

from __future__ import annotations

import os
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from table import parse, show

from embedstore.files import FileState
from embedstore.identity import Identity
from embedstore.manifest import Manifest, manifest_from_columns
from embedstore.revisions.compare import changes_of
from embedstore.revisions.revise import revise
from embedstore.revisions.sources import changed_files
from embedstore.store.commit import ChunkResult
from embedstore.store.reader import open_store
from embedstore.store.writer import open_writer

DIM, CHUNK_ROWS = 4, 256
IDENTITY = Identity("benchmark", "1", "none", {"preset": "pad", "size_px": 448}, "none", "float32", DIM)
_IMAGES_OF_PATIENT, _IMAGES_OF_STUDY = 9, 3
_Result = TypeVar("_Result")


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=147_218, help="rows of the store that is revised")
    parser.add_argument("--files", type=int, default=40_561, help="files whose size and time are compared")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments = parse(parser)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = measure_revision(Path(folder), arguments.rows)
        rows += measure_files(Path(folder), arguments.files)
    title = f"{arguments.rows:,} rows in a store; {arguments.files:,} files"
    show(title, rows, json_path=arguments.json)


def measure_revision(folder: Path, count: int) -> list[dict[str, object]]:
    """Give every row another patient and a further column."""
    root = folder / "revised.store"
    manifest = manifest_of(count)
    write(root, manifest, [FileState(10**5, 10**18, bytes(16))] * count)
    store = open_store(root)
    same, nothing_s, nothing_cpu_s = timed(lambda: changes_of(store, manifest))
    if same:
        raise RuntimeError("the same manifest must be no change")
    patients = pa.array([f"q{row // _IMAGES_OF_PATIENT:06d}" for row in range(count)])
    at = manifest.table.column_names.index("patient_id")
    table = manifest.table.set_column(at, "patient_id", patients)
    wanted = Manifest(table.append_column("weight", pa.array(np.arange(count))))
    changes, found_s, found_cpu_s = timed(lambda: changes_of(store, wanted))
    with open_writer(root, IDENTITY, say=print):
        _, revised_s, revised_cpu_s = timed(lambda: revise(root, changes))
    if open_store(root).table.column("patient_id")[0].as_py() != "q000000":
        raise RuntimeError("the revision must be what the store says now")
    return [
        row("compare, nothing changed", nothing_s, nothing_cpu_s, ""),
        row("compare, every row changed", found_s, found_cpu_s, ""),
        row("compare and revise, with fsync", found_s + revised_s, found_cpu_s + revised_cpu_s, "<= 5 s"),
    ]


def measure_files(folder: Path, count: int) -> list[dict[str, object]]:
    """Compare size and time of files that are as they were."""
    images, root = folder / "images", folder / "files.store"
    manifest = manifest_of(count)
    states = []
    for path in manifest.column("path"):
        file = images / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"image")
        status = os.stat(file)
        states.append(FileState(status.st_size, status.st_mtime_ns, bytes(16)))
    write(root, manifest, states)
    store = open_store(root)
    found, taken_s, cpu_s = timed(lambda: changed_files(store, manifest, images))
    if found.other or found.rewritten:
        raise RuntimeError("no file was changed")
    return [row("size and time of every file, none changed", taken_s, cpu_s, "")]


def manifest_of(count: int) -> Manifest:
    """Return a manifest with patients, studies and two columns of its own."""
    numbers = range(count)
    patients = [f"p{number // _IMAGES_OF_PATIENT:06d}" for number in numbers]
    studies = [
        f"{patient}/study{number // _IMAGES_OF_STUDY}"
        for number, patient in zip(numbers, patients, strict=True)
    ]
    names = [f"{study}/image{number}.png" for number, study in zip(numbers, studies, strict=True)]
    columns = {"image_id": names, "path": names, "patient_id": patients, "study_id": studies}
    own = {"age": [20 + number % 60 for number in numbers], "sex": ["MF"[number % 2] for number in numbers]}
    return manifest_from_columns(columns | own, source="benchmark")


def write(root: Path, manifest: Manifest, states: list[FileState]) -> None:
    """Write a store of these records."""
    with open_writer(root, IDENTITY, say=print) as writer:
        plan = writer.plan_part(
            manifest, dataset="benchmark", data_root="none", dtype="float16", chunk_rows=CHUNK_ROWS
        )
        for chunk in range(plan.chunks):
            start, stop = plan.bounds(chunk)
            vectors = np.ones((stop - start, DIM), np.float32)
            content = np.zeros((stop - start, 32), np.uint8)
            writer.commit(plan, chunk, ChunkResult(vectors, content, sources=tuple(states[start:stop])))


def timed(act: Callable[[], _Result]) -> tuple[_Result, float, float]:
    """Return what `act` returns, the seconds, and the seconds of the processor."""
    started, started_cpu = time.perf_counter(), time.process_time()
    result = act()
    return result, time.perf_counter() - started, time.process_time() - started_cpu


def row(what: str, taken_s: float, cpu_s: float, promise: str) -> dict[str, object]:
    """Return one line of the table."""
    return {"what": what, "seconds": round(taken_s, 3), "CPU s": round(cpu_s, 3), "promise": promise}


if __name__ == "__main__":
    main()
