"""From PNG files to committed rows, against the bare forward pass of the same tower, batch and arithmetic."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from extract import write_pictures

from embedstore.compute_device import DTYPES
from embedstore.datasets.base import Collection
from embedstore.encoders.medgemma import MedGemmaEncoder
from embedstore.encoders.passes import default_pass_rows
from embedstore.encoders.siglip import SiglipEncoder
from embedstore.encoders.tower import TowerEncoder
from embedstore.encoders.vision_tower import PooledTower, VisionShape
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.manifest import manifest_from_columns
from gpu_checks.plan import Plan, attempted, choices
from gpu_checks.towers import DTYPE, Way, fill, forward_of, geometries, seconds_of_pass, speeds

OF_BARE = 0.95
# Starting the decoding processes is part of the run, as it is for a user; it must not be most of it.
_RUN_S = 15
_SMALL_IMAGES = 6
_DISTINCT_PICTURES = 64
# Beside the image tower a Gemma checkpoint holds a language model, which is never read.
_LANGUAGE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}


def measure(plan: Plan) -> None:
    """Write one row for each tower."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(folder / "pictures", 2 if plan.small else _DISTINCT_PICTURES)
        for tower, vision in geometries(plan).items():
            needed = 0 if plan.small else 2 * _RUN_S
            if plan.left_s() < needed:
                note = f"skipped: needs {needed} s, {plan.left_s():.0f} s are left"
                plan.write("end to end", tower=tower, note=note)
                continue
            encoder_of = write_checkpoint(folder / tower, vision, plan.device)
            blank = {
                "tower": tower,
                "dtype": DTYPE,
                "images": None,
                "images/s": None,
                "of bare": None,
                "note": "",
            }

            def compared(
                tower: str = tower, encoder_of: Callable[..., TowerEncoder] = encoder_of
            ) -> Mapping[str, Any]:
                return compare(plan, tower, encoder_of, pictures, folder)

            plan.write("end to end", **attempted(compared, blank, plan.device))


def compare(
    plan: Plan, name: str, encoder_of: Callable[..., TowerEncoder], pictures: Collection, folder: Path
) -> dict[str, Any]:
    """Extract as `embed extract` does, between two timings of the bare pass, and return the row."""
    encoder = encoder_of(str(folder / name), device=str(plan.device), dtype=DTYPE)
    shape = encoder.shape
    rows = default_pass_rows(plan.device, shape.tokens)
    with choices() as chosen:
        encoder.load()
    bare_before = _bare_speed(plan, encoder, shape, rows)
    images = _SMALL_IMAGES if plan.small else max(rows, int(bare_before * _RUN_S))
    workers = 1 if plan.small else max(1, (os.cpu_count() or 1) - 2)
    options = ExtractOptions(workers=workers)
    summary = extract(repeated(pictures, images), folder / f"{name}.store", encoder, options=options)
    if summary.valid != images:
        raise RuntimeError(
            f"{images} pictures must come out as vectors; {summary.valid} did: {summary.failed}"
        )
    bare = max(bare_before, _bare_speed(plan, encoder, shape, rows))
    speed, watch = images / summary.seconds, summary.stopwatch
    return {
        "tower": name,
        "dtype": DTYPE,
        "images": images,
        "pictures in a pass": rows,
        "decoding processes": workers,
        "bare images/s": bare,
        **speeds(plan, speed, shape),
        "of bare": speed / bare,
        "device idle": watch.idle_share,
        "bound by": watch.bound(),
        "promise": plan.verdict(speed / bare, OF_BARE),
        "note": "; ".join(chosen),
    }


def _bare_speed(plan: Plan, encoder: TowerEncoder, shape: VisionShape, rows: int) -> float:
    """Return pictures per second of the tower alone, prepared as the encoder prepares its own."""
    tower = PooledTower(encoder.load_tower(DTYPES[DTYPE]), encoder.identity.pooling).to(plan.device).eval()
    way = Way(rows, "auto")
    return rows / seconds_of_pass(plan, forward_of(plan, tower, shape, way), shape, rows)


def repeated(pictures: Collection, images: int) -> Collection:
    """Return a data set of so many images that read the same few files in turn."""
    paths = list(pictures.manifest.column("path"))
    columns = {
        "image_id": [f"image{number}" for number in range(images)],
        "path": [paths[number % len(paths)] for number in range(images)],
    }
    return Collection(pictures.dataset, pictures.root, manifest_from_columns(columns, source="benchmark"))


def write_checkpoint(
    folder: Path, vision: Mapping[str, Any], device: torch.device
) -> Callable[..., TowerEncoder]:
    """Write a random checkpoint in bfloat16, and return what builds its encoder.

    A tower with a pooling head becomes a SigLIP image tower, one without the image tower of a Gemma 3.
    """
    encoder: type[TowerEncoder]
    if vision.get("vision_use_head", True):
        kind, config = transformers.SiglipVisionModel, transformers.SiglipVisionConfig(**vision)
        encoder = SiglipEncoder
    else:
        kind, encoder = transformers.Gemma3ForConditionalGeneration, MedGemmaEncoder
        config = transformers.Gemma3Config(
            vision_config=dict(vision), text_config=dict(_LANGUAGE), mm_tokens_per_image=1
        )
    with torch.device("meta"):
        model = kind(config)
    model = model.to(DTYPES[DTYPE]).to_empty(device=device)
    fill(model, device)
    model.save_pretrained(folder)
    return encoder
