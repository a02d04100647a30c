"""Extraction with the weights-free encoder: images/s per core, and where the time goes.

python benchmarks/extract_hog.py            draws 200 phantom patients and extracts them

A second table sets the whole extraction of PNG and of JPEG Lossless beside decoding the same files in as many
processes and doing nothing with them, by the clock, and in CPU time beside decoding and encoding alone. Promised is
that at least .9 of the CPU time goes there: hog itself computes on the cores that decode.
"""

from __future__ import annotations

import os
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
from decode import anatomy, write_png
from pydicom import uid
from syntaxes import cpu_ms, file_of
from table import parse, show

from embedstore.datasets.base import Collection
from embedstore.datasets.mura import Mura
from embedstore.decoding.decode import DecodeJob, EncoderInput
from embedstore.decoding.pool import DecoderPool
from embedstore.encoders.hog import HogEncoder
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.manifest import manifest_from_columns
from embedstore.phantoms.mura import write_phantom_mura


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--images", type=int, default=800, help="PNGs of the second table")
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
    with tempfile.TemporaryDirectory() as folder:
        rows = list(against_decoding(Path(folder), arguments.images))
    show("extraction with hog against decoding alone", rows, json_path=None)


def against_decoding(folder: Path, images: int) -> Iterator[dict[str, object]]:
    """Yield rates by the clock and CPU time of an image, best of three in turns."""
    cores = os.cpu_count() or 1
    rng = np.random.default_rng(0)
    kinds = {
        "PNG, 512 x 420": (".png", write_png),
        "JPEG Lossless, 2,500 x 2,048, 12 bits": (".dcm", write_lossless),
    }
    encoder = HogEncoder(device="cpu")
    squares = rng.integers(
        0, 256, (64, encoder.preprocess.size_px, encoder.preprocess.size_px), dtype=np.uint8
    )
    encoding_ms = min(cpu_ms(lambda: encoder.encode(squares)) for _ in range(3)) / len(squares)
    for kind, (ending, write) in kinds.items():
        many = images if write is write_png else max(images // 10, 4)
        names = [write(folder / f"{number}{ending}", rng).name for number in range(min(many, 40))]
        paths = [names[number % len(names)] for number in range(many)]
        columns = {"image_id": [str(number) for number in range(many)], "path": paths}
        collection = Collection("benchmark", folder, manifest_from_columns(columns, source="benchmark"))
        jobs = [DecodeJob(str(folder / path)) for path in paths]

        def decode_all(jobs: list[DecodeJob] = jobs) -> None:
            with DecoderPool(encoder.preprocess, workers=cores) as pool:
                outcomes = list(pool.decode(jobs, ahead=4 * cores))
            if not all(isinstance(outcome, EncoderInput) for outcome in outcomes):
                raise SystemExit("a generated image was refused")

        turns = []
        for turn in range(3):
            store = folder / f"{ending[1:]}{turn}.store"
            turns.append([
                measured(decode_all),
                measured(
                    lambda store=store, collection=collection: extract(
                        collection, store, encoder, options=ExtractOptions(workers=cores)
                    )
                ),
            ])  # fmt: skip
        (decoding_s, decoding_ms), (extraction_s, extraction_ms) = np.array(turns).min(axis=0)
        yield {
            "images": kind,
            "decoding, images/s": many / decoding_s,
            "extraction, images/s": many / extraction_s,
            "of decoding": decoding_s / extraction_s,
            "decoding, CPU ms": decoding_ms / many,
            "encoding, CPU ms": encoding_ms,
            "extraction, CPU ms": extraction_ms / many,
            "of both": (decoding_ms / many + encoding_ms) / (extraction_ms / many),
        }


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock and milliseconds of CPU time, child processes included."""
    started = time.perf_counter()
    spent_ms = cpu_ms(work)
    return time.perf_counter() - started, spent_ms


def write_lossless(path: Path, rng: np.random.Generator) -> Path:
    """Write a radiograph as JPEG Lossless, the commonest compression of picture archives."""
    pixels = (anatomy((2500, 2048), rng) * 4095).astype(np.uint16)
    frame = imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=12)
    path.write_bytes(file_of(frame, uid.JPEGLosslessSV1, bits=12))
    return path


if __name__ == "__main__":
    main()
