"""The networks of many folds before training: random gates, queries next to nothing, values of mean pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.bags.batches import Bags, Fold, Indices
from heads.bags.features import ROWS, ProjectedFeatures
from heads.bags.mean_pooling import mean_pooling, thresholds
from heads.bags.network import AttentionRecipe
from heads.bags.stack import Stack
from heads.solvers.imbalance import natural_to_focal

# Deviation of a query's first weights: enough to tell queries apart, too little to weigh images.
_QUERY_DEVIATION = 1e-2
# Of thresholds of ordered classes, which may not fall together.
_LEAST_GAP = 1e-3


@dataclass(frozen=True, kw_only=True)
class Start:
    """Networks before training.

    Parameters
    ----------
    stack
        The networks, on projected features.
    outside
        Of each fold, (features, members, outputs) float32: the part of mean pooling's weights that no axis holds, which
        stays as it is.
    of_images
        (folds, n, members, outputs) float32: what this part is of each image; None where axes hold all.
    """

    stack: Stack
    outside: list[npt.NDArray[np.float32]]
    of_images: Tensor | None


def started(
    folds: Sequence[Fold],
    *,
    vectors: Tensor,
    images: Tensor,
    features: Sequence[ProjectedFeatures],
    bags: Bags,
    truth: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    n_classes: int,
) -> Start:
    """Return the networks of all folds as they start.

    Parameters
    ----------
    folds
        The folds.
    vectors
        (n, dim + positions) float32 vectors of all images.
    images
        (folds, n, width) projected features of these.
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
    outputs = 1 if recipe.ordered or n_classes == 2 else n_classes
    members, gates = len(folds[0].members), 2 * recipe.hidden
    weight = torch.zeros(len(folds), images.shape[2], members, gates + recipe.queries * outputs)
    query = torch.zeros(len(folds), recipe.hidden, members, recipe.queries)
    bias = torch.zeros(len(folds), 1, members, n_classes - 1 if recipe.ordered else outputs)
    outside: list[npt.NDArray[np.float32]] = []
    for place, fold in enumerate(folds):
        own = features[place]
        gate, first_query = _random(recipe, images[place][bags.rows(fold.units), : own.width], seed=fold.seed)
        values, offsets = _of_means(
            _unit_means(own, vectors, bags, fold.units),
            fold,
            truth[place, fold.units],
            weights[place, fold.units],
            n_classes,
        )
        flat = values.transpose(0, 1).float().reshape(values.shape[1], -1).numpy()
        inside, rest = own.parts(flat)
        # The same function of each query's mean, a share of the whole.
        shared = torch.from_numpy(inside / recipe.queries).view(own.width, members, outputs)
        weight[place, : own.width, :, :gates] = gate[:, None]
        weight[place, : own.width, :, gates:] = shared.repeat(1, 1, recipe.queries)
        query[place] = first_query[:, None]
        bias[place, 0] = offsets.float()
        for index, member in enumerate(fold.members):
            if member.recipe.imbalance == "focal":
                bias[place, 0, index] = _focal_bias(bias[place, 0, index])
        outside.append(rest.reshape(-1, members, outputs))
    recipes = [[member.recipe for member in fold.members] for fold in folds]
    return Start(
        stack=Stack.of([weight, torch.zeros(len(folds), 1, members, gates), query, bias], recipes),
        outside=outside,
        of_images=_outside_of_images(features, outside, vectors),
    )


def _unit_means(own: ProjectedFeatures, vectors: Tensor, bags: Bags, units: Indices) -> Tensor:
    """Return (units, features) float32 mean features of units."""
    means = torch.zeros(len(units), own.features.width)
    rows, unit = torch.from_numpy(bags.rows(units)), np.repeat(np.arange(len(units)), bags.count[units])
    for start in range(0, len(rows), ROWS):
        some = slice(start, start + ROWS)
        means.index_add_(0, torch.from_numpy(unit[some]), own.whole(vectors[rows[some]]))
    return means / torch.from_numpy(bags.count[units])[:, None]


def _outside_of_images(
    features: Sequence[ProjectedFeatures], outside: Sequence[npt.NDArray[np.float32]], vectors: Tensor
) -> Tensor | None:
    """Return (folds, n, members, outputs) values of all images by the weights that no axis holds."""
    if not any(len(own.axes) for own in features):
        return None
    found = torch.empty(len(features), len(vectors), *outside[0].shape[1:])
    for place, own in enumerate(features):
        weights = torch.from_numpy(outside[place]).flatten(1)
        for start in range(0, len(vectors), ROWS):
            some = slice(start, start + ROWS)
            found[place, some] = (own.whole(vectors[some]) @ weights).view(-1, *found.shape[2:])
    return found


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
    n_classes: int,
) -> tuple[Tensor, Tensor]:
    """Return (members, features, outputs) values and (members, biases) biases of mean pooling; uses up the means."""
    recipes = [member.recipe for member in fold.members]
    l2 = torch.tensor([recipe.l2 for recipe in recipes], dtype=torch.float64)
    wide = weight.astype(np.float64)
    if not recipes[0].ordered:
        return mean_pooling(means, truth, wide, l2, outputs=1 if n_classes == 2 else n_classes)
    # The score that tells the classes above the middle from those below, and thresholds along it.
    above = np.stack(
        [_cut(truth[:, member], wide[:, member], n_classes) for member in range(len(l2))], axis=1
    )
    values, _ = mean_pooling(means.clone(), above, wide, l2, outputs=1)
    scores = (means @ values[..., 0].T.float()).double().numpy()
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


def _focal_bias(bias: Tensor) -> Tensor:
    """Return the bias by which a network of the focal loss states the same of the average unit."""
    return torch.from_numpy(natural_to_focal(bias.double().numpy()[None])[0]).to(bias)
