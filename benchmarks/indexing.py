"""How long the readers take to index trees of the real data sets' sizes.

MURA: 40,561 rows (train, valid and test of the download) in CSVs of its format, with empty files in place of
pictures. Lumbar: DICOM headers of the phantom's own slices, 10 % of the real set's 147,218 by default; the
time for all of them is extrapolated, and both figures are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from embedstore.datasets.base import Collection
from embedstore.datasets.mura import FOLDER, Mura
from embedstore.datasets.rsna_lumbar import RsnaLumbar
from embedstore.phantoms.bones import ANATOMIES
from embedstore.phantoms.lumbar import write_phantom_lumbar

MURA_ROWS, MURA_PROMISE_S = 40_561, 3.0
LUMBAR_SLICES, LUMBAR_PROMISE_S = 147_218, 180.0
IMAGES_PER_STUDY = 3
PHANTOM_STUDIES = 12


def write_mura_tables(root: Path, rows: int) -> None:
    """Write MURA's tables with `rows` images, nine tenths of them for training, and an empty file for each."""
    folder = root / FOLDER
    written = 0
    tables: dict[str, tuple[list[str], list[str]]] = {"train": ([], []), "valid": ([], [])}
    study = 0
    while written < rows:
        split = "valid" if study % 10 == 9 else "train"
        label = study % 5 // 3
        path = (
            f"{split}/{ANATOMIES[study % 7]}/patient{study:05d}/study1_{'positive' if label else 'negative'}"
        )
        (folder / path).mkdir(parents=True)
        images, studies = tables[split]
        studies.append(f"{FOLDER}/{path}/,{label}\n")
        for number in range(1, min(IMAGES_PER_STUDY, rows - written) + 1):
            (folder / path / f"image{number}.png").touch()
            images.append(f"{FOLDER}/{path}/image{number}.png\n")
            written += 1
        study += 1
    for split, (images, studies) in tables.items():
        (folder / f"{split}_image_paths.csv").write_text("".join(images))
        (folder / f"{split}_labeled_studies.csv").write_text("".join(studies))


def write_lumbar_tree(root: Path, slices: int) -> Path:
    """Multiply the phantom's studies by copying until the tree has `slices` files or a few more."""
    folder = write_phantom_lumbar(root, studies=PHANTOM_STUDIES, seed=0).root
    images = folder / "train_images"
    originals = sorted(images.iterdir())
    count = sum(1 for _ in folder.rglob("*.dcm"))
    copy = 0
    while count < slices:
        original = originals[copy % len(originals)]
        target = images / str(10**8 + copy)
        shutil.copytree(original, target)
        count += sum(1 for _ in target.rglob("*.dcm"))
        copy += 1
    return folder


def fastest(read: Callable[[], Collection], repeats: int) -> tuple[float, int]:
    """Return the shortest of several times in seconds, and the number of records."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        records = len(read().manifest)
        times.append(time.perf_counter() - start)
    return min(times), records


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.1, help="share of the lumbar slices to write (0.1)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (3)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_mura_tables(root, MURA_ROWS)
        seconds, records = fastest(lambda: Mura().read(root), options.repeats)
        rows.append(("mura", records, seconds, MURA_ROWS, seconds * MURA_ROWS / records, MURA_PROMISE_S))
        folder = write_lumbar_tree(root, round(LUMBAR_SLICES * options.share))
        seconds, records = fastest(lambda: RsnaLumbar().read(folder), options.repeats)
        full_s = seconds * LUMBAR_SLICES / records
        rows.append(("rsna-lumbar", records, seconds, LUMBAR_SLICES, full_s, LUMBAR_PROMISE_S))
    print(
        f"{'data set':<12} {'records':>8} {'seconds':>8} {'records/s':>10} {'all':>8} {'seconds':>8} {'promise':>8}"
    )
    for dataset, records, seconds, full, full_s, promise_s in rows:
        rate = records / seconds
        print(
            f"{dataset:<12} {records:>8,} {seconds:>8.2f} {rate:>10,.0f} {full:>8,} {full_s:>8.1f} {promise_s:>8.0f}"
        )
    if options.json:
        names = ("dataset", "records", "seconds", "all_records", "all_seconds", "promise_seconds")
        document = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "rows": [dict(zip(names, row, strict=True)) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
