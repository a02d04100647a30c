"""Which weights are trained: the top blocks with what stands above them; everything else is frozen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from embedstore.errors import UsageError, first_few
from finetune.towers.tunable import TunableTower

_SHOWN = 3


def unfreeze_top(model: TunableTower, *, whole: bool) -> None:
    """Let the blocks above `model.frozen_blocks` learn, with the last norm, the pooling head and the head.

    Parameters
    ----------
    model
        The model.
    whole
        Also let the embeddings learn: full fine-tuning.
    """
    model.requires_grad_(requires_grad=False)
    model.head.requires_grad_(requires_grad=True)
    tower: Any = model.tower
    for block in model._blocks[model.frozen_blocks :]:
        block.requires_grad_(requires_grad=True)
    tower.post_layernorm.requires_grad_(requires_grad=True)
    if model.pooling == "map":
        tower.head.requires_grad_(requires_grad=True)
    if whole:
        tower.embeddings.requires_grad_(requires_grad=True)


def trained_names(model: nn.Module) -> list[str]:
    """Return the names of the weights that learn, in the model's order."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def require_gradients(model: nn.Module) -> None:
    """Refuse a model some of whose weights that should learn got no gradient in a step.

    Such a weight would stay as it is in silence, or, as an adapter around a layer that never runs, change the answers
    only when it is merged.

    Raises
    ------
    UsageError
        With the first names.
    """
    without = [
        name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None
    ]
    if without:
        raise UsageError(
            f"{len(without)} weights are to be trained and take no part in the answer: "
            f"{first_few(without, shown=_SHOWN)}. Choose other blocks or targets"
        )


def changed_of(trained: nn.Module, base: nn.Module, learned: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the tower's weights that were trained, float32, by the tower's own names.

    Parameters
    ----------
    trained
        The tower after training, its adapters merged.
    base
        The base's tower as it is loaded, float32.
    learned
        Names of what was trained, or had an adapter.

    Raises
    ------
    RuntimeError
        If another weight has changed by a bit: frozen means frozen.
    """
    weights, names = dict(trained.named_parameters()), set(learned)
    for name, before in base.named_parameters():
        if name not in names and not torch.equal(weights[name].detach().cpu(), before.detach().cpu()):
            raise RuntimeError(f"{name} was to stay as it is and has changed; this is a defect of embedstore")
    return {name: weights[name].detach().float().cpu().contiguous() for name in sorted(names)}
