"""Train many networks in one batched pass: configurations, folds, targets and seeds side by side.

Each network has its own rows, order, learning rate and schedule, so that it equals the network trained alone; only
the products are shared. AdamW (arXiv 1711.05101) is written out because torch's optimisers have no learning rate per
network inside one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedstore.compute_device import torch_device
from heads.base import Training
from heads.solvers.imbalance import FOCUS, focal_to_natural, natural_to_focal, shift_of
from heads.solvers.mlp_batches import Feed, Indices, Problem, padded
from heads.solvers.mlp_network import Network, NetworkRecipe, forward, losses, normaliser, untrained
from heads.stages import counted
from heads.torch_threads import SMALL_CELLS, one_thread

# Precision of the weights of a trained network.
Kept = type[np.float32] | type[np.float16]
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
# Parameters of networks trained side by side; each takes about 24 bytes with its moments, gradient and best.
_BLOCK_PARAMETERS = 1 << 25
# Cells of the gathered vectors when networks are only applied.
_APPLY_CELLS = 1 << 22


@dataclass(frozen=True)
class Trained:
    """A trained network, its (s, columns) float32 scores of `Problem.scored`, and its best round."""

    network: Network
    scores: npt.NDArray[np.float32]
    best_round: int


def train(
    training: Training, problems: Sequence[Problem], *, device: str, kept_as: Kept = np.float32
) -> list[Trained]:
    """Train every problem's network; those of one shape are trained together.

    Parameters
    ----------
    training
        Vectors, labels and weights.
    problems
        What to train.
    device
        As `embedstore.compute_device.torch_device`; the same seed on the same device gives the same networks.
    kept_as
        Precision of the weights that are kept, and that score: single, or half for networks that are many.
    """
    with one_thread(only_if=training.X.size <= SMALL_CELLS):
        return _train(training, problems, torch_device(device), kept_as)


def _train(
    training: Training, problems: Sequence[Problem], place: torch.device, kept_as: Kept
) -> list[Trained]:
    # torch does not support read-only vectors; others are not copied, being the largest array of all.
    own = training.X if training.X.flags.writeable else np.array(training.X)
    vectors = torch.from_numpy(own).to(place)
    trained: dict[int, Trained] = {}
    for shape in dict.fromkeys(problem.recipe.shape for problem in problems):
        members = [index for index, problem in enumerate(problems) if problem.recipe.shape == shape]
        widths = [training.X.shape[1], *shape[0], training.columns]
        size = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))
        step = max(1, _BLOCK_PARAMETERS // size)
        for start in range(0, len(members), step):
            block = members[start : start + step]
            results = _Block.create(training, vectors, [problems[index] for index in block]).train(kept_as)
            trained |= dict(zip(block, results, strict=True))
    return [trained[index] for index in range(len(problems))]


@dataclass(frozen=True, kw_only=True)
class _ActiveNetworks:
    """State of the networks still training, stacked."""

    members: Indices  # (models,) index of each network's problem
    tensors: list[Tensor]
    first: list[Tensor]  # AdamW's moments
    second: list[Tensor]
    best: list[Tensor]
    steps: Tensor  # (models, 1, 1) updates so far

    def take(self, kept: npt.NDArray[np.bool_]) -> _ActiveNetworks:
        where = torch.from_numpy(kept).to(self.steps.device)

        def some(stack: list[Tensor]) -> list[Tensor]:
            return [tensor.detach()[where].clone() for tensor in stack]

        return _ActiveNetworks(
            members=self.members[kept],
            tensors=some(self.tensors),
            first=some(self.first),
            second=some(self.second),
            best=some(self.best),
            steps=self.steps[where],
        )

    def without(self, over: npt.NDArray[np.bool_], finished: dict[int, list[Tensor]]) -> _ActiveNetworks:
        """Return the networks that are not over, and put the best weights of the others into `finished`."""
        for index in np.flatnonzero(over):
            finished[int(self.members[index])] = [best[index : index + 1].clone() for best in self.best]
        return self.take(~over) if over.any() else self


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Networks of one shape, with everything that training does not change."""

    training: Training
    vectors: Tensor  # (n, dim)
    problems: list[Problem]
    mean: Tensor  # (models, 1, dim)
    factor: Tensor
    inverse_length: Tensor  # (models or 0, n): one where vectors are used at their own length
    start: list[Tensor]
    shift: npt.NDArray[np.float32]  # (models, columns): what the treatment of rare classes adds to scores
    focal: npt.NDArray[np.bool_]  # (models,): which learn by the focal loss

    @classmethod
    def create(cls, training: Training, vectors: Tensor, problems: list[Problem]) -> _Block:
        fitted: dict[tuple[int, int, str], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}
        means, factors, starts, shifts = [], [], [], []
        for problem in problems:
            key = (id(problem.rows), problem.target, problem.recipe.normalisation)
            weight = training.sample_weight[problem.rows, problem.target]
            if key not in fitted:
                fitted[key] = normaliser(training.X, problem.rows, weight, problem.recipe.normalisation)
            means.append(fitted[key][0])
            factors.append(fitted[key][1])
            truth = training.y[problem.rows, problem.target]
            shifts.append(shift_of(truth, weight, problem.recipe.imbalance, n_classes=training.n_classes))
            prior = _prior(training, truth, weight) + shifts[-1]
            if problem.recipe.imbalance == "focal":
                prior = natural_to_focal(prior[None])[0].astype(np.float32)
            sizes = [training.X.shape[1], *problem.recipe.hidden, training.columns]
            starts.append(untrained(sizes, prior, seed=problem.seed))
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        inverse = torch.where(lengths > 0, 1 / lengths, 0)
        l2 = torch.tensor([p.recipe.normalisation == "l2" for p in problems], device=vectors.device)
        return cls(
            training=training,
            vectors=vectors,
            problems=problems,
            mean=torch.from_numpy(np.stack(means)).to(vectors.device)[:, None],
            factor=torch.from_numpy(np.stack(factors)).to(vectors.device)[:, None],
            inverse_length=torch.where(l2[:, None], inverse.T, torch.ones_like(inverse.T))
            if l2.any()
            else inverse.T[:0],
            start=[torch.stack(layer).to(vectors.device) for layer in zip(*starts, strict=True)],
            shift=np.stack(shifts),
            focal=np.array([problem.recipe.imbalance == "focal" for problem in problems]),
        )

    def train(self, kept_as: Kept) -> list[Trained]:
        """Train round by round; a network ends after its last, or when its loss has not fallen for its patience."""
        count = len(self.problems)
        active = _ActiveNetworks(
            members=np.arange(count),
            tensors=[tensor.clone() for tensor in self.start],
            first=[torch.zeros_like(tensor) for tensor in self.start],
            second=[torch.zeros_like(tensor) for tensor in self.start],
            best=[tensor.clone() for tensor in self.start],
            steps=torch.zeros(count, 1, 1, device=self.vectors.device),
        )
        best_loss, best_round = self._held_out_losses(active), np.zeros(count, np.int64)
        feed = Feed(self.training, self.problems)
        patience = np.array([problem.recipe.patience for problem in self.problems])
        stopping = np.array([len(problem.held_out) > 0 for problem in self.problems])
        last = np.array([problem.recipe.last_epoch for problem in self.problems])
        finished: dict[int, list[Tensor]] = {}
        generators = self._generators()
        active = active.without(last == 0, finished)
        for done in counted("epoch", range(1, int(last.max()) + 1)):
            self._round(active, feed, generators)
            loss, members = self._held_out_losses(active), active.members
            improved = ~stopping[members] | (loss < best_loss[members])
            best_loss[members[improved]], best_round[members[improved]] = loss[improved], done
            where = torch.from_numpy(improved).to(self.vectors.device)
            for best, tensor in zip(active.best, active.tensors, strict=True):
                best[where] = tensor.detach()[where]
            over = (done - best_round[members] >= patience[members]) | (done == last[members])
            active = active.without(over, finished)
            if not len(active.members):
                break
        return [
            self._result(index, finished[index], int(best_round[index]), kept_as) for index in range(count)
        ]

    def _round(self, active: _ActiveNetworks, feed: Feed, generators: list[torch.Generator]) -> None:
        """Take each network through its share of steps; one that has fewer than the others rests."""
        for tensor in active.tensors:
            tensor.requires_grad_(True)
        recipes = [self.problems[member].recipe for member in active.members]
        per_round = feed.steps_per_round[active.members]
        for step in range(int(per_round.max())):
            live = self._column((step < per_round).astype(np.float32))
            rows, weight = feed.batch(active.members, step < per_round)
            truth = self._truth(active.members, rows)
            drops = self._drops(active.members, rows.shape[1], generators)
            scores = forward(active.tensors, self._gather(active.members, rows), drops)
            of_rows = self._focused(active.members, losses(scores, truth))
            loss = (of_rows * torch.from_numpy(weight).to(scores)).sum()
            gradients = torch.autograd.grad(loss, active.tensors)
            active.steps.add_(live)
            total = self._column(feed.steps_per_round[active.members] * np.array([r.epochs for r in recipes]))
            _update(active, gradients, recipes, live=live, progress=(active.steps - 1) / total)
        for tensor in active.tensors:
            tensor.requires_grad_(False)

    def _focused(self, members: Indices, of_rows: Tensor) -> Tensor:
        """Return (models, n) log losses, times ``(1 - p)**2`` of networks that learn by the focal loss."""
        if not self.focal[members].any():
            return of_rows
        focal = torch.from_numpy(self.focal[members]).to(of_rows.device)[:, None]
        return torch.where(focal, of_rows * (-torch.expm1(-of_rows)) ** FOCUS, of_rows)

    def _natural(self, members: Indices, scores: Tensor) -> Tensor:
        """Return (models, n, columns) scores without what the treatment of rare classes makes of them."""
        if self.shift[members].any():
            scores = scores - torch.from_numpy(self.shift[members]).to(scores)[:, None]
        for place in np.flatnonzero(self.focal[members]).tolist():
            natural = focal_to_natural(scores[place].cpu().numpy())
            scores[place] = torch.from_numpy(natural).to(scores)
        return scores

    def _gather(self, members: Indices, rows: Indices) -> Tensor:
        """Return (models, k, dim) normalised vectors of (models, k) rows."""
        index = torch.from_numpy(rows).to(self.vectors.device)
        models = torch.from_numpy(members).to(self.vectors.device)
        gathered = self.vectors[index]
        if len(self.inverse_length):
            gathered *= self.inverse_length[models[:, None], index][:, :, None]
        gathered -= self.mean[models]
        gathered *= self.factor[models]
        return gathered

    def _truth(self, members: Indices, rows: Indices) -> Tensor:
        targets = np.array([self.problems[member].target for member in members])
        truth = np.maximum(self.training.y[rows, targets[:, None]], 0)
        return torch.from_numpy(truth).to(self.vectors.device)

    def _drops(self, members: Indices, rows: int, generators: list[torch.Generator]) -> list[Tensor]:
        """Return dropout's factors, drawn network by network so that none changes with its neighbours."""
        recipes = [self.problems[member].recipe for member in members]
        if not any(any(recipe.dropout) for recipe in recipes):
            return []
        drops = []
        for layer, width in enumerate(recipes[0].hidden):
            factor = torch.empty(len(members), rows, width, device=self.vectors.device)
            for place, member in enumerate(members):
                factor[place].uniform_(generator=generators[member])
            share = self._column(np.array([recipe.dropout[layer] for recipe in recipes]))
            drops.append((factor >= share) / (1 - share))
        return drops

    def _generators(self) -> list[torch.Generator]:
        return [torch.Generator(self.vectors.device).manual_seed(problem.seed) for problem in self.problems]

    def _held_out_losses(self, active: _ActiveNetworks) -> npt.NDArray[np.float64]:
        """Return the weighted log loss of each network's held-out rows; infinite without any, or if NaN."""
        which = [self.problems[member].held_out for member in active.members]
        total = np.zeros(len(active.members))
        for rows, mask in padded(which, self._apply_rows(len(which))):
            scores = self._natural(
                active.members, forward(active.tensors, self._gather(active.members, rows))
            )
            of_row = losses(scores, self._truth(active.members, rows)).double().cpu().numpy()
            targets = [self.problems[member].target for member in active.members]
            weight = self.training.sample_weight[rows, np.array(targets)[:, None]] * mask
            total += (of_row * weight).sum(1)
        weights = [
            self.training.sample_weight[rows, self.problems[member].target].sum(dtype=np.float64)
            for rows, member in zip(which, active.members, strict=True)
        ]
        mean = np.divide(total, weights, out=np.full(len(total), np.inf), where=np.array(weights) > 0)
        return np.where(np.isnan(mean), np.inf, mean)

    def _result(self, index: int, tensors: list[Tensor], best_round: int, kept_as: Kept) -> Trained:
        problem, member = self.problems[index], np.array([index])
        if self.shift[index].any():
            # From here on the network states the classes as they are distributed.
            tensors = [*tensors[:-1], tensors[-1] - torch.from_numpy(self.shift[index]).to(tensors[-1])]
        plain: list[npt.NDArray[np.floating]] = [
            tensor[0].cpu().numpy().astype(kept_as) for tensor in tensors
        ]
        tensors = [
            torch.from_numpy(array.astype(np.float32))[None].to(self.vectors.device) for array in plain
        ]
        parts = [np.zeros((0, self.training.columns), np.float32)]
        step = self._apply_rows(1)
        for start in range(0, len(problem.scored), step):
            rows = problem.scored[None, start : start + step]
            found = forward(tensors, self._gather(member, rows))[0].cpu().numpy()
            parts.append(focal_to_natural(found).astype(np.float32) if self.focal[index] else found)
        network = Network(
            weights=tuple(plain[::2]),
            biases=tuple(bias[0] for bias in plain[1::2]),
            mean=self.mean[index, 0].cpu().numpy(),
            factor=self.factor[index, 0].cpu().numpy(),
            normalisation=problem.recipe.normalisation,
        )
        return Trained(network, np.concatenate(parts), best_round)

    def _apply_rows(self, models: int) -> int:
        return max(1, _APPLY_CELLS // (models * self.vectors.shape[1]))

    def _column(self, values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.vectors.device)[:, None, None]


@torch.no_grad()
def _update(
    active: _ActiveNetworks,
    gradients: Sequence[Tensor],
    recipes: Sequence[NetworkRecipe],
    *,
    live: Tensor,
    progress: Tensor,
) -> None:
    """Take one AdamW step; a network that rests (`live` 0) keeps weights and moments."""

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(recipe, name) for recipe in recipes]).to(live)[:, None, None]

    cosine = torch.tensor([recipe.schedule == "cosine" for recipe in recipes], device=live.device)
    falling = 0.5 * (1 + torch.cos(torch.pi * progress))
    rate = live * column("learning_rate") * torch.where(cosine[:, None, None], falling, 1.0)
    decay, l2 = column("weight_decay"), column("l2")
    steps = active.steps.clamp_min(1)
    for place, (tensor, gradient) in enumerate(zip(active.tensors, gradients, strict=True)):
        # Only weights are regularised; a bias has no scale that noise could inflate.
        if place % 2 == 0:
            if l2.any():
                gradient.addcmul_(tensor, 2 * l2)
            if decay.any():
                tensor.mul_(1 - rate * decay)
        adamw(
            tensor,
            gradient,
            active.first[place],
            active.second[place],
            rate=rate,
            live=live,
            steps=steps,
        )


def adamw(
    tensor: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    rate: Tensor,
    live: Tensor,
    steps: Tensor,
) -> None:
    """Take one step of Adam in place, without the decay of weights; the gradient's memory is used up.

    Parameters
    ----------
    tensor, gradient, first, second
        Weights of many networks, their gradient and moments.
    rate, live, steps
        Of each network, in a shape that spreads over the tensor: learning rate (0 for one that rests), 1 or 0 for one
        that rests and keeps its moments, and the number of steps with this one, 1 or more.
    """
    first.lerp_(gradient, live * (1 - _BETAS[0]))
    second.lerp_(gradient.square_(), live * (1 - _BETAS[1]))
    # The gradient's memory holds what follows: these tensors are large, and new ones cost more than the sums.
    bias_first, bias_second = 1 - _BETAS[0] ** steps, 1 - _BETAS[1] ** steps
    scale = torch.sqrt(second, out=gradient).mul_(bias_second.rsqrt()).add_(_EPSILON)
    tensor.addcmul_(torch.div(first, scale, out=gradient), -rate / bias_first)


def _prior(
    training: Training, y: npt.NDArray[np.int64], weight: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the (columns,) logits of the classes' weighted frequencies, a class never seen not at minus infinity."""
    counts = np.bincount(y, weight, minlength=training.n_classes) + 1e-3 * weight.sum() / len(y)
    logits = np.log(counts / counts.sum())
    return np.asarray(logits[1:] - logits[:1] if training.columns == 1 else logits, np.float32)
