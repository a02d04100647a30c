"""AdamW with a learning rate for each depth, and what it is at each step."""

from __future__ import annotations

import re
from math import cos, pi
from typing import Any

import torch

from finetune.recipe import Recipe
from finetune.towers.tunable import TunableTower

_BLOCK = re.compile(r"\bencoder\.layers\.(\d+)\.")


def make_optimiser(model: TunableTower, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over the weights that learn.

    The head has its own rate. The top block, the last norm and the pooling head have `Recipe.lr`, each block below the
    one above it times `Recipe.layer_decay`, and the embeddings once more times it. Vectors (norms, biases) and the
    pooling head's query have no weight decay.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            decay = 0.0 if _is_undecayed(name, weight) else recipe.weight_decay
            groups.setdefault((rate_of(name, model.blocks, recipe), decay), []).append(weight)
    described: list[dict[str, Any]] = [
        {"params": weights, "lr": rate, "weight_decay": decay, "full_rate": rate}
        for (rate, decay), weights in groups.items()
    ]
    return torch.optim.AdamW(described)


def rate_of(name: str, blocks: int, recipe: Recipe) -> float:
    """Return the learning rate of a weight of a `TunableTower` with so many blocks, by its name."""
    if name.startswith("head."):
        return recipe.head_lr
    block = _BLOCK.search(name)
    if block is not None:
        return recipe.lr * recipe.layer_decay ** (blocks - 1 - int(block[1]))
    return recipe.lr * (recipe.layer_decay**blocks if ".embeddings." in name else 1.0)


def share_of_rate(step: int, steps: int, warm_up: float) -> float:
    """Return the share of its rate that a step has: up in a line, then down as half a cosine, to 0 behind the last.

    Examples
    --------
    >>> [round(share_of_rate(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rising = round(steps * warm_up)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + cos(pi * (step - rising) / max(1, steps - rising)))


def set_rates(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Give every group this share of its rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_rate"] * share


def _is_undecayed(name: str, weight: torch.nn.Parameter) -> bool:
    return weight.ndim <= 1 or name.endswith((".probe", ".bias"))
