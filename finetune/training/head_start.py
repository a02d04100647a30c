"""The head alone, first: it learns from the base's vectors before any block moves, so that its noise moves none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from finetune.pictures.inputs import TowerInputs
from finetune.recipe import Recipe
from finetune.towers.tunable import TunableTower
from finetune.training.losses import cell_weights, log_odds_of_classes, summed_loss
from finetune.training.optimiser import make_optimiser, set_rates, share_of_rate

_HEAD_PLACE = 7  # apart from the draws of the steps


def cut(numbers: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    """Return numbers in pieces of a size, the last one shorter."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


@torch.no_grad()
def base_vectors(
    model: TunableTower,
    inputs: TowerInputs,
    numbers: npt.NDArray[np.int64],
    *,
    batch: int,
    advance: Callable[[int], None] = lambda images: None,
) -> torch.Tensor:
    """Return the vectors (n, dim) float32, on the CPU, that the model gives of images as they are."""
    model.eval()
    found = []
    pieces = cut(numbers, batch)
    for piece, given in zip(pieces, inputs.batches(pieces, view=None), strict=True):
        found.append(model.above(given if inputs.is_residual else model.below(given)).cpu())
        advance(len(piece))
    return torch.cat(found)


def start_head(
    model: TunableTower,
    vectors: torch.Tensor,
    y: npt.NDArray[np.int64],
    class_weights: torch.Tensor,
    recipe: Recipe,
    *,
    warm: bool,
) -> None:
    """Standardise the head by the base's vectors, and let it learn from them for `Recipe.head_epochs`.

    Parameters
    ----------
    model
        On its device.
    vectors
        (n, dim) of the images that teach.
    y
        (n, targets) their labels.
    class_weights
        (targets, classes).
    recipe
        How.
    warm
        Whether the head comes from a run and has weights and a standardisation of its own.
    """
    head, device = model.head, class_weights.device
    if warm and head.takes_vectors_as_they_are:
        head.in_standardised_terms(vectors.to(device))
    if not warm:
        head.standardise_by(vectors.to(device))
        head.start_at(torch.from_numpy(log_odds_of_classes(y, n_classes=class_weights.shape[1])).to(device))
    if not recipe.head_epochs:
        return
    learns = [weight.requires_grad for weight in model.parameters()]
    model.requires_grad_(requires_grad=False)
    head.requires_grad_(requires_grad=True).train()
    optimiser = make_optimiser(model, recipe)
    labels = torch.from_numpy(y)
    steps_of_epoch = -(-len(y) // recipe.batch)
    steps = steps_of_epoch * recipe.head_epochs
    for epoch in range(recipe.head_epochs):
        order = np.random.default_rng([recipe.seed, _HEAD_PLACE, epoch]).permutation(len(y))
        for at, piece in enumerate(cut(order, recipe.batch)):
            step = epoch * steps_of_epoch + at
            torch.manual_seed(seed_of(recipe.seed, _HEAD_PLACE, step))
            _step(head, optimiser, vectors[piece].to(device), labels[piece].to(device), class_weights)
            set_rates(optimiser, share_of_rate(step + 1, steps, recipe.warm_up))
    for weight, learned in zip(model.parameters(), learns, strict=True):
        weight.requires_grad_(learned)


def seed_of(*place: int) -> int:
    """Return a seed below 2**63 for one place of a training."""
    return int(np.random.SeedSequence(list(place)).generate_state(1, np.uint64)[0] >> 1)


def _step(
    head: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    vectors: torch.Tensor,
    y: torch.Tensor,
    class_weights: torch.Tensor,
) -> None:
    total = cell_weights(y, class_weights).sum()
    optimiser.zero_grad(set_to_none=True)
    loss = summed_loss(head(vectors), y, class_weights) / total
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
