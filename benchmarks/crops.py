"""How often a slice is decoded for its crops, and what a crop costs beside its slice.

Phantoms in the layout of the RSNA lumbar competition, crops around their true coordinates, the slices of each study in
the order in which an extraction reads them. Slices per crop are counted, once in this process and once by the bytes
that two decoding processes read (Linux alone tells them); rates are per second of CPU time, best of several.

    python benchmarks/crops.py --studies 6 --json crops.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from embedstore.crops.crop_collection import with_crops
from embedstore.datasets.base import Collection, read_dataset
from embedstore.decoding.decode import DecodeJob, DecodeLimits, LastPicture, decode
from embedstore.decoding.pool import DecoderPool
from embedstore.images.preprocess import PreprocessSpec
from embedstore.manifest import path_from_manifest
from embedstore.phantoms.lumbar import write_phantom_lumbar
from embedstore.pipeline.chunk_work import box_of

_RANGE = (0.0, 900.0)


def main() -> None:
    """Run every measurement and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=6, help="phantom studies")
    parser.add_argument("--repeats", type=int, default=3, help="times each rate is taken; the best counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = write_phantom_lumbar(folder, studies=arguments.studies).root
        results = list(measurements(read_dataset("rsna-lumbar", root), arguments.repeats))
    for name, value, unit in results:
        print(f"{name:<52}{value:>10.3g} {unit}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def measurements(slices: Collection, repeats: int) -> Iterator[tuple[str, float, str]]:
    """Yield name, value and unit of one row after the other."""
    started = time.process_time()
    crops = with_crops(slices, "oracle")
    studies = len(set(crops.manifest.column("study_id")))
    yield "choosing slices and places", 1000 * (time.process_time() - started) / studies, "ms a study"
    jobs = jobs_of(crops)
    yield "crops", len(jobs) / studies, "a study"
    spec = PreprocessSpec()
    last = LastPicture()
    for job in jobs:
        decode(job, spec, DecodeLimits(), last)
    yield "slices decoded, in one process", last.decoded / len(jobs), "per crop"
    if Path("/proc/self/io").exists():
        yield "slices decoded, in two processes", decoded_in_pool(jobs, spec) / len(jobs), "per crop"
    pieces = [LastPicture() for _ in range(repeats)]
    kept = max(rate(jobs, spec, piece) for piece in pieces)
    alone = max(rate(jobs, spec, None) for _ in range(repeats))
    whole = [DecodeJob(job.path, job.frame, job.modality, _RANGE) for job in jobs]
    yield "crops, their slice kept", kept, "per second of CPU"
    yield "crops, their slice decoded for each", alone, "per second of CPU"
    yield "whole slices", max(rate(whole, spec, None) for _ in range(repeats)), "per second of CPU"


def jobs_of(crops: Collection) -> list[DecodeJob]:
    """Return what an extraction decodes."""
    return [
        DecodeJob(
            str(path_from_manifest(crops.root, record.path)),
            record.frame,
            record.modality,
            _RANGE,
            crop=box_of(record),
        )
        for record in crops.manifest.records()
    ]


def rate(jobs: list[DecodeJob], spec: PreprocessSpec, last: LastPicture | None) -> float:
    """Return how many jobs are done in a second of CPU time."""
    started = time.process_time()
    for job in jobs:
        decode(job, spec, DecodeLimits(), last)
    return len(jobs) / (time.process_time() - started)


def decoded_in_pool(jobs: list[DecodeJob], spec: PreprocessSpec) -> float:
    """Return how many slices two processes read for crops, by the bytes that they read for each slice once."""
    once = list({job.picture: replace(job, crop=None) for job in jobs}.values())
    with DecoderPool(spec, workers=2) as pool:
        while len(pool.process_ids()) < 2:
            time.sleep(0.05)
        # Both import what reading DICOM takes, which is more than they will read of it.
        list(pool.decode(once, ahead=64))
        places = [_bytes_read(pool)]
        for asked in (once, jobs):
            list(pool.decode(asked, ahead=64))
            places.append(_bytes_read(pool))
    before, between, after = places
    return len(once) * (after - between) / (between - before)


def _bytes_read(pool: DecoderPool) -> int:
    texts = [Path(f"/proc/{pid}/io").read_text() for pid in pool.process_ids()]
    return sum(int(text.partition("rchar: ")[2].split()[0]) for text in texts)


if __name__ == "__main__":
    main()
