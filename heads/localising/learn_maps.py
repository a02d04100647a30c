"""Learning the maps of one kind of series: a network of each fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from heads.localising.network import MapNetwork
from heads.localising.recipe import Recipe
from heads.localising.samples import Samples, Targets, targets_of
from heads.solvers.mlp_training import adamw
from heads.torch_threads import one_thread

_WARM_UP = 0.1
_WEIGHT_DECAY = 1e-2
_LARGEST_GRADIENT = 1.0
_MOMENTS_STUDIES = 64
_TARGETS_AT_ONCE = 32


def learn_folds(
    samples: Samples, chosen: Sequence[npt.NDArray[np.int64]], recipe: Recipe, *, seeds: Sequence[int]
) -> list[MapNetwork]:
    """Learn a network of each fold, as many at once as torch has threads.

    Each is learned in one thread, so that the same seeds and samples give the same weights whatever their number.

    Parameters
    ----------
    chosen
        Rows of `samples` that each fold learns from.
    seeds
        Of each fold.
    """
    workers = min(torch.get_num_threads(), len(chosen))
    networks = []
    for seed in seeds:
        # First weights come from torch's one generator, which threads would share.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks.append(MapNetwork(samples.tokens.shape[-1], recipe.hidden))
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        targets = _targets_of_all(samples, recipe)
        jobs = [
            pool.submit(_learn, network, samples, targets, own, recipe, seed=seed)
            for network, own, seed in zip(networks, chosen, seeds, strict=True)
        ]
        return [job.result() for job in jobs]


def _targets_of_all(samples: Samples, recipe: Recipe) -> Targets:
    """Return the targets of all samples.

    Each is asked for by every fold, some hundred times where studies are few: a sixth of the time of learning, if they
    were made anew. Beside float16 tokens of 64 numbers they take a quarter of the memory.
    """
    rows = np.arange(len(samples))
    pieces = [
        targets_of(samples, rows[start : start + _TARGETS_AT_ONCE], recipe)
        for start in range(0, len(rows), _TARGETS_AT_ONCE)
    ]
    return Targets(
        **{
            entry.name: torch.cat([getattr(piece, entry.name) for piece in pieces])
            for entry in fields(Targets)
        }
    )


def _learn(
    network: MapNetwork,
    samples: Samples,
    targets: Targets,
    chosen: npt.NDArray[np.int64],
    recipe: Recipe,
    *,
    seed: int,
) -> MapNetwork:
    shuffle = np.random.default_rng(seed)
    _set_moments(network, samples, shuffle.permutation(chosen)[:_MOMENTS_STUDIES])
    weights = list(network.parameters())
    moments = [(torch.zeros_like(entry), torch.zeros_like(entry)) for entry in weights]
    order = np.zeros(0, np.int64)
    for step in range(recipe.steps):
        if len(order) < recipe.batch:
            order = np.concatenate([order, shuffle.permutation(chosen)])
        batch, order = order[: recipe.batch], order[recipe.batch :]
        loss = _loss(network, samples, batch, targets.of(batch))
        gradients = torch.autograd.grad(loss, weights)
        _update(weights, gradients, moments, recipe.learning_rate * _pace(step, recipe.steps), step + 1)
    return network.eval()


@torch.no_grad()
def _update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[tuple[Tensor, Tensor]],
    rate: float,
    steps: int,
) -> None:
    """Take one AdamW step; torch's own optimisers import three seconds of compiler."""
    norm = torch.stack([entry.norm() for entry in gradients]).norm()
    scale = (_LARGEST_GRADIENT / (norm + 1e-6)).clamp(max=1.0)
    one = torch.ones(())
    for weight, gradient, (first, second) in zip(weights, gradients, moments, strict=True):
        weight.mul_(1 - rate * _WEIGHT_DECAY)
        adamw(
            weight,
            gradient * scale,
            first,
            second,
            rate=one * rate,
            live=one,
            steps=torch.tensor(float(steps)),
        )


def _loss(network: MapNetwork, samples: Samples, batch: npt.NDArray[np.int64], targets: Targets) -> Tensor:
    there = torch.from_numpy(samples.there[batch])
    tokens = torch.from_numpy(samples.tokens[batch])
    disc, names, ways = (
        found.view(*tokens.shape[:2], *found.shape[1:]) for found in network(tokens.flatten(0, 1).float())
    )
    absent = ~there[:, :, None, None]
    disc = disc.masked_fill(absent, -1e9).flatten(1).log_softmax(-1)
    names = names.masked_fill(absent[..., None], -1e9).flatten(1, 3).log_softmax(1)
    of_disc = -(targets.disc.flatten(1) * disc).sum(-1).mean()
    of_names = -(targets.names.flatten(1, 3) * names).sum(1)
    of_names = (of_names * targets.named).sum() / targets.named.sum().clamp(min=1)
    away = nn.functional.smooth_l1_loss(ways, targets.ways, reduction="none").sum(-1)
    of_ways = (away * targets.disc).sum() / len(batch)
    total: Tensor = of_disc + of_names + 4.0 * of_ways
    return total


def _pace(step: int, steps: int) -> float:
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _set_moments(network: MapNetwork, samples: Samples, chosen: npt.NDArray[np.int64]) -> None:
    own = samples.tokens[chosen][samples.there[chosen]].astype(np.float64)
    flat = own.reshape(-1, own.shape[-1])
    network.mean.copy_(torch.from_numpy(flat.mean(axis=0)))
    network.deviation.copy_(torch.from_numpy(np.maximum(flat.std(axis=0), 1e-4)))
