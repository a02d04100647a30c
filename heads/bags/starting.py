"""The networks of many folds before training: random gates, queries next to nothing, values of mean pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.bags.batches import Bags, Fold
from heads.bags.features import ProjectedFeatures
from heads.bags.mean_pooling import mean_pooling, thresholds
from heads.bags.network import AttentionRecipe
from heads.bags.stack import Stack

# Deviation of a query's first weights: enough to tell queries apart, too little to weigh images.
_QUERY_DEVIATION = 1e-2
# Of thresholds of ordered classes, which may not fall together.
_LEAST_GAP = 1e-3


def started(
    folds: Sequence[Fold],
    *,
    images: Tensor,
    features: Sequence[ProjectedFeatures],
    bags: Bags,
    truth: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    n_classes: int,
) -> Stack:
    """Return the networks of all folds as they start.

    Parameters
    ----------
    folds
        The folds.
    images
        (folds, n, width) features of all images.
    features
        Of each fold; those after its own width are 0.
    bags
        The rows of each unit.
    truth, weights
        (folds, units, members) classes, and weights that sum to 1 over the units learned from.
    n_classes
        Number of classes.
    """
    recipe = folds[0].members[0].recipe
    ordered = recipe.ordered
    outputs = 1 if ordered or n_classes == 2 else n_classes
    members, width = len(folds[0].members), images.shape[2]
    weight = torch.zeros(len(folds), width, members, 2 * recipe.hidden + recipe.queries * outputs)
    query = torch.zeros(len(folds), recipe.hidden, members, recipe.queries)
    bias = torch.zeros(len(folds), 1, members, n_classes - 1 if ordered else outputs)
    for place, fold in enumerate(folds):
        own = features[place].width
        rows = torch.from_numpy(bags.rows(fold.units))
        seen = images[place][rows, :own]
        gate, first_query = _random(recipe, seen, seed=fold.seed)
        count = torch.from_numpy(bags.count[fold.units])
        means = (
            torch.segment_reduce(seen, "sum", lengths=count, axis=0, unsafe=True).double() / count[:, None]
        )
        values, offsets = _of_means(
            means, fold, truth[place, fold.units], weights[place, fold.units], outputs, n_classes, ordered
        )
        weight[place, :own, :, : 2 * recipe.hidden] = gate[:, None]
        # The same function of each query's mean, a share of the whole.
        shared = (values / recipe.queries).transpose(0, 1).repeat(1, 1, recipe.queries)
        weight[place, :own, :, 2 * recipe.hidden :] = shared.float()
        query[place] = first_query[:, None]
        bias[place, 0] = offsets.float()
    gate_bias = torch.zeros(len(folds), 1, members, 2 * recipe.hidden)
    return Stack.of(
        [weight, gate_bias, query, bias], [[member.recipe for member in fold.members] for fold in folds]
    )


def _random(recipe: AttentionRecipe, seen: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return (width, 2 * hidden) gates whose inputs have a variance of 1 on the images seen, and small queries."""
    generator = torch.Generator().manual_seed(seed)
    length = seen.square().sum(1).mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    gate = torch.randn(seen.shape[1], 2 * recipe.hidden, generator=generator) / length
    return gate, _QUERY_DEVIATION * torch.randn(recipe.hidden, recipe.queries, generator=generator)


def _of_means(
    means: Tensor,
    fold: Fold,
    truth: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float32],
    outputs: int,
    n_classes: int,
    ordered: bool,
) -> tuple[Tensor, Tensor]:
    """Return (members, width, outputs) values and (members, biases) biases of mean pooling."""
    l2 = torch.tensor([member.recipe.l2 for member in fold.members], dtype=torch.float64)
    wide = weight.astype(np.float64)
    if not ordered:
        return mean_pooling(means, truth, wide, l2, outputs=outputs)
    # The score that tells the classes above the middle from those below, and thresholds along it.
    above = np.stack(
        [_cut(truth[:, member], wide[:, member], n_classes) for member in range(len(l2))], axis=1
    )
    values, _ = mean_pooling(means, above, wide, l2, outputs=1)
    scores = (means @ values[..., 0].T).numpy()
    biases = []
    for member in range(len(l2)):
        found = thresholds(scores[:, member], truth[:, member], wide[:, member], n_classes)
        biases.append([found[0], *np.log(np.maximum(np.diff(found), _LEAST_GAP))])
    return values, torch.tensor(np.array(biases))


def _cut(
    truth: npt.NDArray[np.int64], weight: npt.NDArray[np.float64], n_classes: int
) -> npt.NDArray[np.int64]:
    """Return whether each class is above the cut that parts the weights most evenly."""
    at_most = np.cumsum(np.bincount(truth, weight, minlength=n_classes))[:-1]
    cut = int(np.abs(at_most - weight.sum() / 2).argmin())
    return (truth > cut).astype(np.int64)
