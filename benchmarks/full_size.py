"""Extract with checkpoints of the true size, kill it, go on: the store must be that of an undisturbed run.

python benchmarks/full_size.py                       MedSigLIP, then MedGemma's image tower at 896 px
python benchmarks/full_size.py --encoders medsiglip

Checkpoints are random (a pass takes as long whatever the weights) and written by transformers: MedSigLIP with
both towers, MedGemma with a language model of 4B's widths but two layers, whose numbers must never be read.
Each command is a process of its own, as a user starts it; needs 8 GB of disk and 8 GB of memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from table import parse, show

VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
TEXT = {**VISION, "vocab_size": 32_000}
del TEXT["patch_size"]
# google/medgemma-4b-pt, but for the number of layers (34)
LANGUAGE = {
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262_208,
}
CHUNK_ROWS = 2


def main() -> None:
    """Run and print."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", default="medsiglip,medgemma")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to work  [default: a temporary folder]")
    arguments = parse(parser)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        table = write_pictures(folder / "images", arguments.images)
        rows = [measure(encoder, folder, table) for encoder in arguments.encoders.split(",")]
    show("Full-size checkpoints: kill -9 and resume", rows, json_path=arguments.json)


def measure(encoder: str, folder: Path, table: Path) -> dict[str, Any]:
    """Write a checkpoint, extract once undisturbed and once killed, and compare the stores."""
    checkpoint = folder / encoder
    write = {"medsiglip": write_medsiglip, "medgemma": write_medgemma}[encoder]
    parameters = write(checkpoint)
    whole, killed = folder / f"{encoder}-whole.store", folder / f"{encoder}-killed.store"
    summary = json.loads(_finish(_start(checkpoint, table, whole)))
    first = _start(checkpoint, table, killed)
    finished = _kill_after_a_chunk(first, killed)
    resumed = json.loads(_finish(_start(checkpoint, table, killed)))
    subprocess.run([*_embed(), "verify", str(killed)], check=True, stdout=subprocess.DEVNULL)
    size_gb = sum(path.stat().st_size for path in checkpoint.iterdir()) / 1e9
    return {
        "checkpoint": f"{encoder}, {parameters / 1e6:,.0f} M parameters, {size_gb:.1f} GB",
        "images": summary["computed"],
        "images/s": summary["images_per_s"],
        "killed with": f"{finished} of {-(-summary['computed'] // CHUNK_ROWS)} chunks done",
        "images left for the second run": resumed["computed"],
        "TFLOP/s": summary["tflops_per_s"],
        "same bytes": _digest(whole) == _digest(killed),
    }


def write_medsiglip(folder: Path) -> int:
    """Write both towers of MedSigLIP with random numbers; return how many."""
    config = transformers.SiglipConfig(vision_config={**VISION, "image_size": 448}, text_config=dict(TEXT))
    return _write(transformers.SiglipModel, config, folder)


def write_medgemma(folder: Path) -> int:
    """Write a Gemma 3 checkpoint with MedGemma's image tower, in shards; return its number of parameters."""
    vision = {**VISION, "image_size": 896, "vision_use_head": False}
    config = transformers.Gemma3Config(
        vision_config=vision, text_config=dict(LANGUAGE), mm_tokens_per_image=256
    )
    return _write(transformers.Gemma3ForConditionalGeneration, config, folder)


def _write(kind: Any, config: Any, folder: Path) -> int:
    with torch.device("meta"):
        model = kind(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        spread = 0.02 if parameter.ndim == 1 else (3 / parameter[0].numel()) ** 0.5
        parameter.data.uniform_(-spread, spread, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    model.save_pretrained(folder, max_shard_size="1GB")
    return sum(parameter.numel() for parameter in model.parameters())


def write_pictures(folder: Path, count: int) -> Path:
    """Write noise in the size of a radiograph, and the table that lists it."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    names = [f"image{index}.png" for index in range(count)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, (420, 512), dtype=np.uint8)).save(folder / name)
    table = folder / "images.csv"
    table.write_text("\n".join(["path", *names]) + "\n")
    return table


def _embed() -> list[str]:
    return [sys.executable, "-c", "from cli.main import main; main()"]


def _start(checkpoint: Path, table: Path, store: Path) -> subprocess.Popen[str]:
    options = ["--dataset", "table", "--root", table, "--store", store, "--encoder", checkpoint]
    command = [
        *_embed(),
        "extract",
        *map(str, options),
        "--chunk-rows",
        str(CHUNK_ROWS),
        "--device",
        "cpu",
        "--json",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"embed extract ended with {process.returncode}: {output}")
    return output


def _kill_after_a_chunk(process: subprocess.Popen[str], store: Path) -> int:
    receipts = store / "parts" / "0000" / "receipts"
    while process.poll() is None and not list(receipts.glob("*.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(receipts.glob("*.json")))


def _digest(store: Path) -> str:
    """Digest every vector and every content digest of a store, with their names."""
    digest = hashlib.sha256()
    for path in sorted((store / "parts").rglob("c/*/*")):
        digest.update(path.relative_to(store).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
