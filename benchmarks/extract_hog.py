"""Extraction with the weights-free encoder: images/s per core, and where the time goes.

python benchmarks/extract_hog.py            draws 200 phantom patients and extracts them
"""

from __future__ import annotations

import os
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from table import parse, show

from embedstore.datasets.mura import Mura
from embedstore.encoders.hog import HogEncoder
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.phantoms.mura import write_phantom_mura


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=200)
    arguments = parse(parser)
    cores = os.cpu_count() or 1
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_phantom_mura(Path(folder), patients=arguments.patients, seed=0)
        collection = Mura().read(Path(folder) / "MURA-v1.1")
        for workers in sorted({1, cores}):
            options = ExtractOptions(workers=workers)
            summary = extract(
                collection, Path(folder) / f"{workers}.store", HogEncoder(device="cpu"), options=options
            )
            watch = summary.stopwatch
            spent = watch.decode_s + watch.encode_s + watch.write_s
            rows.append(
                {
                    "decoding processes": workers,
                    "images": summary.computed,
                    "images/s": summary.computed / summary.seconds,
                    "images/s per core": summary.computed / summary.seconds / cores,
                    "waiting for pixels": f"{watch.decode_s / spent:.0%}",
                    "encoding": f"{watch.encode_s / spent:.0%}",
                    "waiting for the disk": f"{watch.write_s / spent:.0%}",
                    "bound by": watch.bound(),
                }
            )
    show("extraction of phantom MURA with hog", rows, json_path=arguments.json)


if __name__ == "__main__":
    main()
