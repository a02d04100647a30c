"""How fast images become encoder inputs, per core, and what isolation costs.

Promises: 512 px PNG and 640 x 640 16-bit MR, decode + preprocess, at least 150 images/s per core each;
decoding in a process of its own at most 10 % slower than in the calling one.

Images are generated: smooth anatomy-like shapes with noise, so that they compress about as real ones do
(512 px PNG about 150 kB). Rates per core are per second of CPU time, and isolation is what it adds to the CPU
time of an image, in parent and child together, measured in turns, best of several: other programs on the
machine only ever slow things down. By the clock isolation may gain, where parent and child overlap.
Before these come all transfer syntaxes of DICOM, each beside another library (`syntaxes.py`).

    python benchmarks/decode.py --json decode.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from syntaxes import measurements as syntax_measurements

from embedstore.decoding.decode import DecodeJob, EncoderInput, SerialDecoder
from embedstore.decoding.pool import DecoderPool
from embedstore.images.preprocess import PRESETS, PreprocessSpec, preprocess

PROMISED_PER_S = 150.0
PROMISED_COST = 0.10


def main() -> None:
    """Run every measurement and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200, help="images per measurement")
    parser.add_argument(
        "--repeats", type=int, default=5, help="times each measurement is taken; the best counts"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        syntaxes = list(syntax_measurements(Path(folder), arguments.repeats))
        results = list(measurements(Path(folder), arguments.images, arguments.repeats))
    for row in syntaxes:
        theirs = (
            f"{row['its ms']:>8.1f} ms  {row['beside']:<20}{row['times']:>5.1f} x" if row["beside"] else ""
        )
        print(f"{row['syntax']:<44}{row['ms']:>8.1f} ms{theirs}")
    for result in results:
        kept = {True: "kept", False: "BROKEN", None: ""}[result["kept"]]
        print(
            f"{result['name']:<44}{result['value']:>10.3g} {result['unit']:<22}{result['promise']:<10}{kept}"
        )
    if arguments.json:
        host = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        arguments.json.write_text(
            json.dumps({"host": host, "syntaxes": syntaxes, "results": results}, indent=2) + "\n"
        )


def measurements(folder: Path, images: int, repeats: int) -> Iterator[dict[str, object]]:
    """Yield one row of the table after the other."""
    spec = PreprocessSpec()
    rng = np.random.default_rng(0)
    pngs = [write_png(folder / f"{number}.png", rng) for number in range(20)]
    slices = [write_mr(folder / f"{number}.dcm", rng) for number in range(20)]
    png_jobs = [DecodeJob(str(pngs[number % 20])) for number in range(images)]
    mr_jobs = [DecodeJob(str(slices[number % 20]), value_range=(50.0, 1800.0)) for number in range(images)]
    serial = SerialDecoder(spec)
    for name, jobs in (("PNG 512 px", png_jobs), ("MR 640 x 640, 16 bits", mr_jobs)):
        best_s = min(cpu_seconds(lambda jobs=jobs: check(serial.decode(jobs))) for _ in range(repeats))
        yield promised(f"{name}: decode + preprocess", images / best_s, "images/s per core", PROMISED_PER_S)
    for name, jobs in (("PNG 512 px", png_jobs), ("MR 640 x 640, 16 bits", mr_jobs)):
        turns = list(in_turns(spec, jobs, repeats))
        cpu_cost = min(turn["isolated cpu"] for turn in turns) / min(turn["alone cpu"] for turn in turns) - 1
        cost = min(turn["isolated"] for turn in turns) / min(turn["alone"] for turn in turns) - 1
        yield promised(f"{name}: isolation, CPU time", cpu_cost, "of the time", PROMISED_COST, most=True)
        yield plain(f"{name}: isolation, by the clock", cost, "of the time")
    picture = rng.integers(0, 256, (512, 420), dtype=np.uint8)
    for preset in PRESETS:
        chosen = PreprocessSpec(preset)
        best_s = min(
            cpu_seconds(lambda chosen=chosen: [preprocess(picture, chosen) for _ in range(100)])
            for _ in range(repeats)
        )
        yield plain(f"preprocess {preset}, 512 x 420 -> 448", best_s * 10, "ms per image")
    started = time.perf_counter()
    with DecoderPool(spec, workers=1) as pool:
        check(pool.decode(png_jobs[:1], ahead=0))
        yield plain("first image from a new process", 1000 * (time.perf_counter() - started), "ms")


def in_turns(spec: PreprocessSpec, jobs: list[DecodeJob], repeats: int) -> Iterator[dict[str, float]]:
    """Yield seconds in this process and in one process of a pool, by the clock and of CPU, alternately."""
    serial = SerialDecoder(spec)
    with DecoderPool(spec, workers=1) as pool:
        check(pool.decode(jobs[:4], ahead=2))  # start-up and imports are not what is compared
        for _ in range(repeats):
            marks = []
            for work in (lambda: check(serial.decode(jobs)), lambda: check(pool.decode(jobs, ahead=16))):
                before = time.perf_counter(), time.process_time() + child_cpu_seconds(pool.process_ids())
                work()
                after = time.perf_counter(), time.process_time() + child_cpu_seconds(pool.process_ids())
                marks.append((after[0] - before[0], after[1] - before[1]))
            (alone, alone_cpu), (isolated, isolated_cpu) = marks
            yield {
                "alone": alone, "alone cpu": alone_cpu, "isolated": isolated, "isolated cpu": isolated_cpu,
            }  # fmt: skip


def child_cpu_seconds(process_ids: tuple[int, ...]) -> float:
    """Return the CPU time that running child processes have taken so far (Linux)."""
    ticks = 0
    for process_id in process_ids:
        fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def check(outcomes: Iterator[object]) -> None:
    """Consume outcomes; a benchmark over refusals would be fast and worthless."""
    for outcome in outcomes:
        if not isinstance(outcome, EncoderInput):
            raise SystemExit(f"a generated image was refused: {outcome}")


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that `work` takes in this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def wall_seconds(work: Callable[[], object]) -> float:
    """Return the time that `work` takes by the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def promised(name: str, value: float, unit: str, promise: float, *, most: bool = False) -> dict[str, object]:
    """Return a row with a promise: at least `promise`, or at most where `most`."""
    kept = value <= promise if most else value >= promise
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "promise": f"{'<=' if most else '>='} {promise:g}",
        "kept": kept,
    }


def plain(name: str, value: float, unit: str) -> dict[str, object]:
    """Return a row without a promise."""
    return {"name": name, "value": value, "unit": unit, "promise": "", "kept": None}


def anatomy(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return smooth shapes with noise, 0 ... 1."""
    coarse = Image.fromarray(rng.random((12, 12), dtype=np.float32)).resize(
        shape[::-1], Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse) + rng.normal(0, 0.02, shape), 0, 1)


def write_png(path: Path, rng: np.random.Generator) -> Path:
    """Write a grey PNG, longest side 512, as in MURA."""
    Image.fromarray((anatomy((512, 420), rng) * 255).astype(np.uint8)).save(path)
    return path


def write_mr(path: Path, rng: np.random.Generator) -> Path:
    """Write an uncompressed MR slice as in RSNA 2024 Lumbar."""
    pixels = (anatomy((640, 640), rng) * 2000).astype("<u2")
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = uid.MRImageStorage, "1.2.3"
    ds.Modality = "MR"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [1, 2, 3], [0, 1, 0, 0, 0, -1]
    ds.PixelSpacing = [0.5, 0.5]
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.WindowCenter, ds.WindowWidth = 500, 1000
    ds.PixelData = pixels.tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path


if __name__ == "__main__":
    main()
