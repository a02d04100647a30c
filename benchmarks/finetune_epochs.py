"""Epochs of a fine-tuning with and without a prefix cache, and trainings that are killed at random moments.

python benchmarks/finetune_epochs.py                            27 blocks of width 192, top 1, 2 and 4, in minutes
python benchmarks/finetune_epochs.py --size full --images 20    MedSigLIP's 428 million parameters, random
python benchmarks/finetune_epochs.py --kills 20                 SIGKILL at random moments: equal weights in the end

Weights are random: the time of a step does not depend on them. Ways take turns within a round, so that a machine that
is busy is busy for all. Theory counts passes through blocks, a backward pass as two: (27 - K + 3 K) / 3 K.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from PIL import Image
from table import parse, show

from embedstore.datasets.base import Collection
from embedstore.encoders.hog import HogEncoder
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.manifest import manifest_from_columns
from embedstore.task import Task
from finetune.fine_tuning import fine_tune
from finetune.job import FineTuning, Watchers
from finetune.pictures.augment import NONE
from finetune.prefix import CacheOptions
from finetune.recipe import Recipe

FULL = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
FULL |= {"image_size": 448, "patch_size": 14}
SMALL = FULL | {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 4, "image_size": 112}
TINY = SMALL | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
BLOCKS = (1, 2, 4)


def main() -> None:
    """Print the table, or what came of the kills."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.kills:
            raise SystemExit(kills(place, options))
        write_lesson(place, FULL if options.size == "full" else SMALL, images=options.images)
        title = f"fine-tuning, {options.size} tower, {options.images} images"
        show(title, rows(place, options), json_path=options.json)


def rows(place: Path, options: Namespace) -> list[dict[str, Any]]:
    """Return a row for each number of blocks: the shortest of the rounds, which a busy machine lengthens least."""
    shape = FULL if options.size == "full" else SMALL
    tokens = (shape["image_size"] // shape["patch_size"]) ** 2
    count = shape["num_hidden_layers"]
    found = []
    for blocks in options.top:
        without, cached, filling = [], [], []
        for number in range(options.rounds):
            without.append(epoch(place, f"{blocks}-{number}-without", blocks, options, cache="none")[0])
            seconds, filled = epoch(place, f"{blocks}-{number}-cached", blocks, options, cache="float16")
            cached.append(seconds)
            filling.append(filled)
        row_bytes = 2 * tokens * shape["hidden_size"]
        learned = round(0.85 * 0.8 * options.images)
        found.append(
            {
                "top": blocks,
                "epoch (s)": min(without),
                "epoch, cached (s)": min(cached),
                "times faster": min(without) / min(cached),
                "theory": (count - blocks + 3 * blocks) / (3 * blocks),
                "filling the cache (s)": min(filling),
                "bytes an image": row_bytes,
                "read (MB/s)": row_bytes * learned / min(cached) / 1e6,
            }
        )
    return found


def epoch(place: Path, name: str, blocks: int, options: Namespace, *, cache: str) -> tuple[float, float]:
    """Return the seconds of one epoch of training, and those of filling the cache before it."""
    filled: list[float] = []

    def show_progress(reached: Any) -> None:
        if reached.epoch == 0:
            filled.append(reached.images / reached.images_per_s)

    tuned = fine_tune(job_of(place, name, blocks, options.batch, cache=cache), Watchers(show=show_progress))
    shutil.rmtree(place / name)
    return tuned.progress.seconds / len(tuned.progress.history[1:]), max(filled, default=0.0)


def job_of(place: Path, name: str, blocks: int, batch: int, *, cache: str) -> FineTuning:
    """Return a training of two epochs in float32 on the CPU; its pictures stay in memory."""
    recipe = Recipe(
        blocks=blocks, epochs=2, batch=batch, head_epochs=1, dtype="float32", augmentation=NONE, patience=9
    )
    return FineTuning(
        stores=[place / "pictures.store"],
        out=place / name,
        task="finding",
        encoder=str(place / "base"),
        recipe=recipe,
        device="cpu",
        workers=0,
        cache=CacheOptions(asked=cache),
    )


def write_lesson(place: Path, shape: dict[str, Any], *, images: int) -> None:
    """Write a base with random weights, pictures of noise, and their store."""
    with torch.device("meta"):
        tower = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**shape))
    tower = tower.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, weight in tower.named_parameters():
        spread = 0.02 if weight.ndim == 1 else (3 / weight[0].numel()) ** 0.5
        weight.data.uniform_(-spread, spread, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weight.data += 1
    tower.save_pretrained(place / "base")
    (place / "images").mkdir()
    drawn = np.random.default_rng(0)
    for number in range(images):
        pixels = drawn.integers(0, 256, (shape["image_size"],) * 2, dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"images/{number}.png")
    ids = [f"image{number}" for number in range(images)]
    columns = {"image_id": ids, "path": [f"{number}.png" for number in range(images)]}
    columns |= {"patient_id": ids, "study_id": ids}
    labels = pa.table({"unit_id": ids, "sign": ["no" if number % 2 else "yes" for number in range(images)]})
    task = Task("finding", "study", ("sign",), ("no", "yes"), labels)
    manifest = manifest_from_columns(columns, source="noise")
    collection = Collection("noise", place / "images", manifest, (task,))
    extract(collection, place / "pictures.store", HogEncoder(), options=ExtractOptions())


def kills(place: Path, options: Namespace) -> int:
    """Kill a training so often, go on with it, and compare its weights with one that ran undisturbed."""
    write_lesson(place, TINY, images=64)
    _finetune(place, "whole").wait()
    drawn, done = random.Random(0), 0
    while done < options.kills:
        resumed = ["--resume"] if (place / "killed/training/state.json").is_file() else []
        child = _finetune(place, "killed", *resumed)
        try:
            code = child.wait(timeout=drawn.uniform(3, 15))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            done += 1
            continue
        if code:
            print(f"a resumed training ended with {code}")
            return 1
        if not _same(place):
            return 1
        shutil.rmtree(place / "killed")
    resumed = ["--resume"] if (place / "killed/training/state.json").is_file() else []
    _finetune(place, "killed", *resumed).wait()
    same = _same(place)
    print(f"{done} kills, {'the weights of an undisturbed training' if same else 'OTHER WEIGHTS'}")
    return 0 if same else 1


def _same(place: Path) -> bool:
    names = ("changed.safetensors", "head.safetensors")
    return all((place / "whole" / n).read_bytes() == (place / "killed" / n).read_bytes() for n in names)


def _finetune(place: Path, out: str, *further: str) -> subprocess.Popen[bytes]:
    words = f"""-m cli.main finetune --store pictures.store --task finding --encoder base --yes --device cpu --workers 0
        --dtype float32 --epochs 60 --patience 60 --batch 8 --blocks 1 --lr 1e-4 --ema 0.9 --head-dropout 0.1
        --checkpoint-minutes 0 --cache none --out {out}""".split()
    return subprocess.Popen(
        [sys.executable, *words, *further], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _options() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--top", type=int, nargs="+", default=BLOCKS, help="numbers of blocks")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0, help="kill a training so often instead")
    return parse(parser)


if __name__ == "__main__":
    main()
