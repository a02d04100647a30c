"""Extraction end to end against the bare forward pass, and against the loop that most people write.

python benchmarks/extract.py --size small --images 200     a small tower, in a minute
python benchmarks/extract.py --size full --images 12       MedSigLIP's 428 million parameters, random
python benchmarks/extract.py --device cuda --sweep         pass sizes, kernels, compilation, arithmetic

Weights are random: the time of a forward pass does not depend on them. The bare forward pass has its
pictures in memory, normalised; end to end means PNG files in, a finished store out, model loaded before.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from clock import timed
from PIL import Image
from table import parse, show
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from embedstore.compute_device import DTYPES, resolve_device, resolve_dtype
from embedstore.datasets.base import Collection
from embedstore.encoders.execution import BACKENDS, prepare_forward
from embedstore.encoders.passes import default_pass_rows
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.encoders.vision_tower import PooledTower
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.manifest import manifest_from_columns

FULL = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
}
SMALL = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "image_size": 224,
    "patch_size": 14,
}
SOURCE_PX = (512, 420)  # a MURA radiograph
LOOP_BATCH = 8
_WAYS = ("bare forward pass", "embed extract", "processor + model + np.save", "embed extract, again")
SWEEP_ROWS = (1, 4, 8, 16, 32, 64, 128)
MATMUL_SIDE = 8192


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="shape of the tower")
    parser.add_argument("--image-size", type=int, metavar="PX", help="another side: 896 is MedGemma's")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=1, help="take the fastest of so many")
    parser.add_argument("--workers", type=int, default=1, help="decoding processes")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=["float32", "bfloat16"])
    parser.add_argument("--sweep", action="store_true", help="measure the tower alone in many ways instead")
    arguments = parse(parser)
    vision = dict(FULL if arguments.size == "full" else SMALL)
    vision["image_size"] = arguments.image_size or vision["image_size"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "model", vision)
        rows = list(sweep(folder / "model", arguments) if arguments.sweep else compare(folder, arguments))
    threads = torch.get_num_threads()
    title = f"{arguments.size} SigLIP tower, {vision['image_size']} px, {threads} threads, torch {torch.__version__}"
    show(title, rows, json_path=arguments.json)


def compare(folder: Path, arguments: Namespace) -> Iterator[dict[str, Any]]:
    """Yield one row for each way to turn the same PNG files into vectors."""
    collection = write_pictures(folder / "images", arguments.images)
    for dtype in arguments.dtypes:
        encoder = SiglipEncoder(str(folder / "model"), device=arguments.device, dtype=dtype)
        started = time.perf_counter()
        encoder.load()
        loading = f"loading took {time.perf_counter() - started:.1f} s"
        bare, loop = bare_pass(encoder), usual_loop(folder, collection, dtype, encoder)
        ways: dict[str, list[tuple[float, str]]] = {name: [] for name in _WAYS}
        # The ways take turns, so that a machine with other work to do disturbs all of them alike.
        for turn in range(arguments.rounds):
            store = folder / f"{dtype}-{turn}.store"
            ways["bare forward pass"].append((bare(arguments.images), loading))
            ways["embed extract"].append(extraction(collection, store, encoder, arguments.workers))
            ways["processor + model + np.save"].append((loop(), f"batch {LOOP_BATCH}"))
            fresh = SiglipEncoder(encoder.origin, device=encoder.device, dtype=dtype)
            seconds, _ = extraction(collection, store, fresh, arguments.workers)
            ways["embed extract, again"].append((seconds, "nothing to do"))
        bare_s = min(ways["bare forward pass"])[0]
        for way, times in ways.items():
            seconds, note = min(times)
            images = 0 if way == "embed extract, again" else arguments.images
            yield _row(way, dtype, images, seconds, bare_s, note)


def extraction(
    collection: Collection, store: Path, encoder: SiglipEncoder, workers: int
) -> tuple[float, str]:
    """Return the time of an extraction and where it went."""
    summary = extract(collection, store, encoder, options=ExtractOptions(workers=workers))
    watch = summary.stopwatch
    waited = f"waited {watch.decode_s:.2f} s for pixels, {watch.write_s:.2f} s for the disk"
    device = f"device idle {watch.idle_share or 0:.1%}, {watch.tflops_per_s or 0:.2f} TFLOP/s while busy"
    return summary.seconds, f"bound by {watch.bound()}; {waited}; {device}"


def _row(way: str, dtype: str, images: int, seconds: float, bare_s: float, note: str) -> dict[str, Any]:
    speed = f"{images / seconds:.2f}" if images else "-"
    share = f"{bare_s / seconds:.3f}" if images else "-"
    return {
        "way": way,
        "arithmetic": dtype,
        "images": images,
        "seconds": seconds,
        "images/s": speed,
        "of bare": share,
        "note": note,
    }


def bare_pass(encoder: SiglipEncoder) -> Callable[[int], float]:
    """Return what times forward passes over so many pictures that lie on the device, normalised."""
    device = resolve_device(encoder.device)
    dtype = DTYPES[encoder.identity.compute_dtype]
    rows = default_pass_rows(device, encoder.shape.tokens)
    tower = PooledTower(encoder.load_tower(dtype), encoder.identity.pooling).to(device)
    forward = prepare_forward(tower, encoder.shape, rows=rows, dtype=dtype, device=device, execution="eager")
    size = encoder.shape.image_size
    pictures = torch.rand((rows, 3, size, size), device=device).mul(2).sub(1).to(dtype)

    def run(images: int) -> float:
        with torch.inference_mode():
            forward(pictures)
            return timed(lambda: [forward(pictures) for _ in range(-(-images // rows))], device)

    return run


def usual_loop(
    folder: Path, collection: Collection, dtype: str, encoder: SiglipEncoder
) -> Callable[[], float]:
    """Return what times the loop of the model card: open, process, get_image_features, np.save."""
    size = encoder.shape.image_size
    processor = SiglipImageProcessorPil(size={"height": size, "width": size})
    device = resolve_device(encoder.device)
    model = transformers.SiglipModel.from_pretrained(folder / "model", dtype=DTYPES[dtype]).to(device).eval()
    paths = [collection.root / path for path in collection.manifest.column("path")]

    def loop() -> None:
        features = []
        for first in range(0, len(paths), LOOP_BATCH):
            pictures = [Image.open(path).convert("RGB") for path in paths[first : first + LOOP_BATCH]]
            pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(device, DTYPES[dtype])
            features.append(model.get_image_features(pixel_values=pixels).pooler_output.float().cpu().numpy())
        np.save(folder / "features.npy", np.concatenate(features))

    def run() -> float:
        with torch.inference_mode():
            return timed(loop, device)

    return run


def sweep(checkpoint: Path, arguments: Namespace) -> Iterator[dict[str, Any]]:
    """Yield one row for each arithmetic, execution, attention kernel and number of pictures in a pass."""
    device = resolve_device(arguments.device)
    encoder = SiglipEncoder(str(checkpoint), device=arguments.device)
    executions = ("eager", "compile", "graph") if device.type == "cuda" else ("eager", "compile")
    kernels = ("auto", *BACKENDS) if device.type == "cuda" else ("auto",)
    usual = default_pass_rows(device, encoder.shape.tokens)
    for dtype in arguments.dtypes:
        ceiling = matmul_flops(device, DTYPES[dtype])
        tower = PooledTower(encoder.load_tower(DTYPES[dtype]), "map").to(device)
        plans = [(rows, "eager", "auto") for rows in SWEEP_ROWS]
        plans += [(usual, *way) for way in product(executions, kernels) if way != ("eager", "auto")]
        for rows, execution, kernel in plans:
            speed = tower_speed(tower, encoder, rows, dtype, execution, kernel)
            flops = speed * encoder.shape.flops_per_image
            yield {
                "arithmetic": resolve_dtype(dtype, device),
                "pictures in a pass": rows,
                "execution": execution,
                "attention": kernel,
                "images/s": f"{speed:.2f}",
                "TFLOP/s": f"{flops / 1e12:.2f}",
                "of matrix product": f"{flops / ceiling:.3f}",
            }


def tower_speed(
    tower: torch.nn.Module, encoder: SiglipEncoder, rows: int, dtype: str, execution: str, kernel: str
) -> float:
    """Return pictures per second of the tower alone, or NaN where it does not run that way."""
    device, size = resolve_device(encoder.device), encoder.shape.image_size
    pictures = torch.rand((rows, 3, size, size), device=device).mul(2).sub(1).to(DTYPES[dtype])
    try:
        forward = prepare_forward(
            tower,
            encoder.shape,
            rows=rows,
            dtype=DTYPES[dtype],
            device=device,
            execution=execution,
            attention=kernel,
        )
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # why a kernel does not apply
            forward(pictures)
            once = timed(lambda: forward(pictures), device)
            repeats = max(1, min(20, int(5 / once)))
            return repeats * rows / timed(lambda: [forward(pictures) for _ in range(repeats)], device)
    except RuntimeError:
        return float("nan")


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return floating-point operations per second of one large matrix product: the ceiling."""
    side = MATMUL_SIDE if device.type == "cuda" else MATMUL_SIDE // 4
    left, right = (torch.randn((side, side), device=device).to(dtype) for _ in range(2))
    left @ right
    times = [timed(lambda: left @ right, device) for _ in range(5)]
    return float(2 * side**3 / sorted(times)[2])


def write_checkpoint(folder: Path, vision: dict[str, int]) -> None:
    """Write a SigLIP checkpoint with random numbers and a text tower of one small layer."""
    text = {
        "hidden_size": vision["hidden_size"],
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": vision["num_attention_heads"],
        "vocab_size": 64,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with torch.device("meta"):
        model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        spread = 0.02 if parameter.ndim == 1 else (3 / parameter[0].numel()) ** 0.5
        parameter.data.uniform_(-spread, spread).add_(float("norm" in name and name.endswith("weight")))
    model.save_pretrained(folder)


def write_pictures(folder: Path, count: int) -> Collection:
    """Write grey PNG files of a radiograph's size: soft shapes with a little noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (16, 14), dtype=np.uint8)).resize(SOURCE_PX[::-1])
        noisy = np.asarray(soft).astype(np.int16) + rng.integers(-4, 5, SOURCE_PX, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    names = [f"{number}.png" for number in range(count)]
    manifest = manifest_from_columns({"image_id": names, "path": names}, source="benchmark")
    return Collection("benchmark", folder, manifest)


if __name__ == "__main__":
    main()
