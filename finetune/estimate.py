"""How long a training would take here, from one picture that is timed."""

from __future__ import annotations

import time

import torch

from finetune.base import tunable
from finetune.fine_tuning import Prepared
from finetune.pictures.training_images import LEARNED, VALIDATION
from finetune.towers.tunable import require_blocks

# A backward pass costs about twice its forward pass.
_BACKWARD = 2


def estimated_seconds(prepared: Prepared) -> tuple[float, float]:
    """Time one picture through the tower on the CPU and count what the training would need, without a prefix cache.

    Returns
    -------
    Seconds of a picture's forward pass, and of the whole training if it runs to its last epoch: forwards through every
    block, backwards through the trained ones, validations, and once the head's own vectors.
    """
    recipe, base = prepared.recipe, prepared.base
    with torch.random.fork_rng(devices=[]):
        model = tunable(base, prepared.images.view, recipe).eval()
    size = base.shape.image_size
    picture = torch.zeros((1, 3, size, size))
    with torch.no_grad():
        model.vectors(picture)
        began = time.perf_counter()
        model.vectors(picture)
        forward_s = time.perf_counter() - began
    blocks = base.shape.num_hidden_layers
    trained = require_blocks(recipe.blocks, blocks) / blocks
    learned, judging = (len(prepared.images.images_of(role)) for role in (LEARNED, VALIDATION))
    passes = recipe.epochs * learned * (1 + _BACKWARD * trained) + (recipe.epochs + 1) * judging + learned
    return forward_s, passes * forward_s
