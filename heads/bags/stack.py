"""Many attention networks as one: weights of folds and of the networks of a fold stacked along two axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.bags.features import ProjectedFeatures
from heads.bags.network import AttentionNetwork, AttentionRecipe
from heads.solvers.mlp_training import adamw

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_WEIGHT, _QUERY = 0, 2


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Weights of networks of one shape, with the moments of their training.

    Parameters
    ----------
    folds, members
        Which folds, and which networks of each, these are.
    recipes
        (folds) x (members) recipes.
    tensors
        Float32: (folds, width, members, 2 * hidden + queries * outputs) gates and values, (folds, 1, members,
        2 * hidden) biases of gates, (folds, hidden, members, queries) queries, (folds, 1, members, biases) biases of
        scores as `heads.bags.network.AttentionNetwork.bias`.
    first, second
        Adam's moments of each.
    steps
        (folds, 1, members, 1) updates so far.
    """

    folds: Indices
    members: Indices
    recipes: Sequence[Sequence[AttentionRecipe]]
    tensors: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]
    steps: Tensor

    @classmethod
    def of(cls, tensors: list[Tensor], recipes: Sequence[Sequence[AttentionRecipe]]) -> Stack:
        """Return untrained networks; `tensors` as above."""
        folds, members = len(recipes), len(recipes[0])
        return cls(
            folds=np.arange(folds),
            members=np.arange(members),
            recipes=recipes,
            tensors=tensors,
            first=[torch.zeros_like(tensor) for tensor in tensors],
            second=[torch.zeros_like(tensor) for tensor in tensors],
            steps=torch.zeros(folds, 1, members, 1),
        )

    @property
    def recipe(self) -> AttentionRecipe:
        """The recipe of one of them; all have its shape."""
        return self.recipes[0][0]

    @property
    def columns(self) -> int:
        """Numbers that an image is projected to, of all networks of a fold."""
        weight = self.tensors[_WEIGHT]
        return weight.shape[2] * weight.shape[3]

    def copy(self) -> Stack:
        """Return networks of their own with the same weights."""
        return replace(self, tensors=[tensor.detach().clone() for tensor in self.tensors])

    def take(self, wanted: Mask) -> Stack:
        """Return the folds and members of which one is wanted by an (all folds, all members) mask, at their place."""
        folds, members = wanted[self.folds].any(1), wanted[:, self.members].any(0)
        if folds.all() and members.all():
            return self
        of_fold, of_member = torch.from_numpy(folds), torch.from_numpy(members)

        def some(stacked: list[Tensor]) -> list[Tensor]:
            return [tensor.detach()[of_fold][:, :, of_member].clone() for tensor in stacked]

        return Stack(
            folds=self.folds[folds],
            members=self.members[members],
            recipes=[
                [self.recipes[fold][member] for member in np.flatnonzero(members).tolist()]
                for fold in np.flatnonzero(folds).tolist()
            ],
            tensors=some(self.tensors),
            first=some(self.first),
            second=some(self.second),
            steps=self.steps[of_fold][:, :, of_member].clone(),
        )

    def keep(self, trained: Stack, better: Mask) -> None:
        """Take over the weights of `trained` where an (all folds, all members) mask says so."""
        for fold, of_fold in enumerate(trained.folds):
            own = np.flatnonzero(better[of_fold, trained.members])
            for kept, tensor in zip(self.tensors, trained.tensors, strict=True):
                kept[of_fold, :, trained.members[own]] = tensor.detach()[fold, :, own]

    def learning(self, on: bool) -> None:
        """Say whether gradients are wanted."""
        for tensor in self.tensors:
            tensor.requires_grad_(on)

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor], live: Mask, steps_per_round: Indices) -> None:
        """Take one AdamW step with a cosine's rate; a network that rests (`live` False) keeps weights and moments.

        Parameters
        ----------
        gradients
            Of each tensor.
        live
            (folds, members) bool.
        steps_per_round
            (folds,) int64: of the folds of this stack.
        """
        recipe = self.recipe
        going = torch.from_numpy(live.astype(np.float32))[:, None, :, None]
        self.steps.add_(going)
        total = torch.from_numpy(steps_per_round * recipe.epochs).float()[:, None, None, None]
        falling = 0.5 * (1 + torch.cos(torch.pi * (self.steps - 1) / total))
        rate = going * falling * self._column("learning_rate")
        gates = 2 * recipe.hidden
        weight, query = self.tensors[_WEIGHT], self.tensors[_QUERY]
        # As many queries as there are share one linear function: its penalty must not depend on their number.
        gradients[_WEIGHT][..., gates:].addcmul_(weight[..., gates:], self._column("l2") * recipe.queries)
        decayed = 1 - rate * self._column("weight_decay")
        weight[..., :gates].mul_(decayed)
        query.mul_(decayed)
        for place, (tensor, gradient) in enumerate(zip(self.tensors, gradients, strict=True)):
            adamw(
                tensor,
                gradient,
                self.first[place],
                self.second[place],
                rate=rate,
                live=going,
                steps=self.steps.clamp_min(1),
            )

    def network(
        self, fold: int, member: int, features: ProjectedFeatures, outside: npt.NDArray[np.float32]
    ) -> AttentionNetwork:
        """Return one of the networks, by its place in this stack; `outside` as `heads.bags.starting.Start`, its own."""
        weight, gate_bias, query, bias = (
            tensor[fold, :, member].detach().numpy().copy() for tensor in self.tensors
        )
        gates = 2 * self.recipe.hidden
        own = features.weights_of_features(weight[: features.width])
        value = own[:, gates:].reshape(len(own), query.shape[1], -1) + outside[:, None] / np.float32(
            query.shape[1]
        )
        return AttentionNetwork(
            features=features.features,
            gate=np.ascontiguousarray(own[:, :gates]),
            gate_bias=gate_bias[0],
            query=query,
            value=value,
            bias=bias[0],
            ordered=self.recipe.ordered,
        )

    def _column(self, name: str) -> Tensor:
        values = [[getattr(recipe, name) for recipe in of_fold] for of_fold in self.recipes]
        return torch.tensor(values, dtype=torch.float32)[:, None, :, None]


def forward(
    stack: Stack, images: Tensor, outside: Tensor | None, lengths: Tensor, drops: Tensor | None = None
) -> Tensor:
    """Return (folds, u, members, columns) logits.

    Parameters
    ----------
    stack
        The networks.
    images
        (folds, n, width) projected features, unit after unit.
    outside
        (folds, n, members, outputs) values beside those along the axes; None without.
    lengths
        (folds, u + 1) int64 images of each unit, and of what fills up at the end.
    drops
        (folds, u, width) factors of each unit's features; none in use.
    """
    recipe = stack.recipe
    weight, gate_bias, query, bias = stack.tensors
    folds, n, width = images.shape
    members, hidden, queries = weight.shape[2], recipe.hidden, recipe.queries
    flat = lengths.flatten()
    segment = torch.repeat_interleave(torch.arange(len(flat)), flat)
    if drops is not None:
        factors = torch.nn.functional.pad(drops, (0, 0, 0, 1), value=1.0)
        images = images * factors.reshape(-1, width)[segment].view(images.shape)
    projected = torch.bmm(images, weight.reshape(folds, width, -1)).view(folds, n, members, -1)
    gates = projected[..., : 2 * hidden] + gate_bias
    opened = torch.tanh(gates[..., :hidden]) * torch.sigmoid(gates[..., hidden:])
    asked = query.transpose(1, 2)[:, None]
    logits = torch.stack([(opened * asked[..., each]).sum(-1) for each in range(queries)], -1)
    logits = logits.reshape(folds * n, -1)
    with torch.no_grad():
        largest = _per_unit(logits, "max", flat)[segment]
    shares = torch.exp(logits - largest)
    values = projected[..., 2 * hidden :].reshape(folds, n, members, queries, -1)
    if outside is not None:
        values = values + outside[:, :, :, None] / queries
    values = values.reshape(folds * n, members * queries, -1)
    sums = _per_unit((shares[..., None] * values).flatten(1), "sum", flat)
    # The largest share of a unit is 1, so that only those without an image are below.
    total = _per_unit(shares, "sum", flat).clamp_min(0.5)
    pooled = (sums.view(len(flat), members * queries, -1) / total[..., None]).view(
        folds, -1, members, queries, values.shape[2]
    )
    score = pooled[:, :-1].sum(3)
    return _ordered(score, bias) if recipe.ordered else score + bias


def losses(scores: Tensor, truth: Tensor) -> Tensor:
    """Return (folds, u, members) log losses of logits for int64 classes."""
    if scores.shape[3] == 1:
        logits = scores[..., 0]
        return torch.nn.functional.softplus(logits) - logits * truth
    return torch.logsumexp(scores, 3) - scores.gather(3, truth[..., None])[..., 0]


def _per_unit(values: Tensor, reduction: str, lengths: Tensor) -> Tensor:
    return torch.segment_reduce(values, reduction, lengths=lengths, axis=0, unsafe=True)


def _ordered(score: Tensor, bias: Tensor) -> Tensor:
    """Return log probabilities as `heads.bags.network.ordered_scores`."""
    gaps = bias[..., 1:].exp()
    thresholds = torch.cumsum(torch.cat([bias[..., :1], gaps], -1), -1)
    at_most = torch.nn.functional.logsigmoid(thresholds - score)
    above = torch.nn.functional.logsigmoid(score - thresholds)
    between = at_most[..., 1:] + above[..., :-1] + torch.log(-torch.expm1(-gaps))
    return torch.cat([at_most[..., :1], between, above[..., -1:]], -1)
