"""Steps of a fine-tuning in the true shape of MedSigLIP: top K blocks with and without a prefix cache, and LoRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from embedstore.compute_device import DTYPES
from finetune.recipe import LoraRecipe, Recipe
from finetune.towers.lora import add_adapters
from finetune.towers.trainable_blocks import require_gradients, unfreeze_top
from finetune.towers.tunable import ClassificationHead, TunableTower
from finetune.training.losses import cell_weights, summed_loss
from finetune.training.optimiser import make_optimiser
from gpu_checks.plan import Plan, attempted, peak_gb, seconds_of
from gpu_checks.rows import Row
from gpu_checks.towers import fill, geometries

BLOCKS = (1, 2, 4)
PROMISED_AT = {2: 4.0}
_ARITHMETIC = "bfloat16"
_IMAGES = 32


@dataclass(frozen=True)
class Trainable:
    """A model in training with a batch for it.

    Parameters
    ----------
    model
        On its device.
    recipe
        How it learns.
    pictures
        (n, 3, size, size) float32 from -1 to 1.
    y
        (n, 1) labels.
    """

    model: TunableTower
    recipe: Recipe
    pictures: torch.Tensor
    y: torch.Tensor

    def step(self, inputs: torch.Tensor, *, is_residual: bool) -> Callable[[], None]:
        """Return a whole step: forwards, backwards, AdamW; checked once for weights without a gradient."""
        weights = torch.ones((1, 2), device=inputs.device)
        total = cell_weights(self.y, weights).sum()
        optimiser = make_optimiser(self.model, self.recipe)
        device = inputs.device.type

        def run() -> None:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=DTYPES[_ARITHMETIC]):
                logits = self.model(inputs, is_residual=is_residual)
            (summed_loss(logits, self.y, weights) / total).backward()
            optimiser.step()

        run()
        require_gradients(self.model)
        return run

    def residual(self) -> torch.Tensor:
        """Return what the frozen blocks make of the pictures, as a float16 cache holds it."""
        with torch.no_grad(), torch.autocast(self.pictures.device.type, dtype=DTYPES[_ARITHMETIC]):
            return self.model.below(self.pictures).half().float()


def measure(plan: Plan) -> None:
    """Write a row for each number of blocks without and with a cache, and one for LoRA."""
    name, vision = next(iter(geometries(plan).items()))
    for blocks in BLOCKS:
        if blocks > vision["num_hidden_layers"]:
            continue
        plan.write("fine-tuning", **_row(plan, name, vision, Recipe(blocks=blocks)))
    lora = Recipe(method="lora", blocks=None, lora=LoraRecipe())
    plan.write("fine-tuning", **_row(plan, name, vision, lora))


def _row(plan: Plan, name: str, vision: Mapping[str, Any], recipe: Recipe) -> Row:
    what = "LoRA r 16, all blocks" if recipe.lora else f"top {recipe.blocks}"
    blank: dict[str, Any] = {
        "tower": name,
        "what": what,
        "passes": _ARITHMETIC,
        "images of a step": _images(plan),
        "images/s": None,
        "peak (GB)": None,
        "images/s, cached": None,
        "times faster": None,
        "peak, cached (GB)": None,
        "bytes an image": None,
        "read (GB/s)": None,
        "promise": "",
        "note": "",
    }

    def timed_steps() -> dict[str, Any]:
        made = trainable(plan, vision, recipe)
        speed = _images(plan) / seconds_of(made.step(made.pictures, is_residual=False), plan)
        row = {**blank, "images/s": speed, "peak (GB)": peak_gb(plan.device)}
        return row if recipe.lora else {**row, **_cached(plan, made, recipe, speed)}

    return attempted(timed_steps, blank, plan.device)


def _cached(plan: Plan, made: Trainable, recipe: Recipe, without: float) -> dict[str, Any]:
    residual = made.residual()
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    speed = len(residual) / seconds_of(made.step(residual, is_residual=True), plan)
    row_bytes = 2 * int(np.prod(residual.shape[1:]))
    promised = PROMISED_AT.get(recipe.blocks or 0)
    return {
        "images/s, cached": speed,
        "times faster": speed / without,
        "peak, cached (GB)": peak_gb(plan.device),
        "bytes an image": row_bytes,
        "read (GB/s)": speed * row_bytes / 1e9,
        "promise": "" if promised is None else plan.verdict(speed / without, promised),
    }


def trainable(plan: Plan, vision: Mapping[str, Any], recipe: Recipe) -> Trainable:
    """Build a model with random weights on the device, and a batch of noise."""
    config = transformers.SiglipVisionConfig(**vision, attn_implementation="sdpa")
    with torch.device("meta"):
        tower = transformers.SiglipVisionModel(config)
    tower = tower.to_empty(device=plan.device)
    fill(tower, plan.device)
    count = vision["num_hidden_layers"]
    head = ClassificationHead(vision["hidden_size"], recipe.head_widths, 1).to(plan.device)
    frozen = count - (count if recipe.blocks is None else recipe.blocks)
    model = TunableTower(tower, "map", head, frozen_blocks=frozen)
    if recipe.lora is None:
        unfreeze_top(model, whole=False)
    else:
        add_adapters(model, recipe.lora)
    size = (_images(plan), 3, vision["image_size"], vision["image_size"])
    y = torch.arange(_images(plan), device=plan.device)[:, None] % 2
    return Trainable(model.train(), recipe, torch.rand(size, device=plan.device) * 2 - 1, y)


def _images(plan: Plan) -> int:
    return 4 if plan.small else _IMAGES
