"""Train many attention networks in one batched pass: folds, targets and grid points side by side.

The networks of a fold share their batches, so that one product moves them all; each has its own weights, penalty and
end, and equals the network trained alone. Every network starts at mean pooling (`heads.bags.mean_pooling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.bags.batches import Bags, Batch, Feed, Fold, Indices, parts
from heads.bags.features import ProjectedFeatures
from heads.bags.network import AttentionNetwork
from heads.bags.stack import Stack, forward, losses
from heads.bags.starting import Start, started
from heads.base import Training
from heads.solvers.imbalance import FOCUS, case_weights, focal_to_natural, shift_of
from heads.stages import counted
from heads.torch_threads import one_thread

# Features of folds that are trained side by side: a third as many cells as the vectors have, and 64 MB at least.
_LEAST_CELLS = 1 << 24
_SHARE = 0.33
# Cells of the projected images of a part of a batch: few enough to stay in a core's cache.
_PART_CELLS = 1 << 21


@dataclass(frozen=True)
class Trained:
    """A trained network, its (s, columns) float32 scores of `Fold.scored`, and its best round."""

    network: AttentionNetwork
    scores: npt.NDArray[np.float32]
    best_round: int


def train(training: Training, folds: Sequence[Fold]) -> list[list[Trained]]:
    """Train every fold's networks, which have one shape and are equally many in each fold.

    Parameters
    ----------
    training
        Vectors, labels and weights.
    folds
        What to train; the same seed gives the same networks.
    """
    recipe = folds[0].members[0].recipe
    width = min(recipe.components, training.X.shape[1] - recipe.positions) + recipe.positions
    width += len(folds[0].members) * training.columns
    held = max(_LEAST_CELLS, int(_SHARE * training.X.size))
    step = max(1, held // max(1, len(training.X) * width))
    # A step is short whatever the number of rows: threads would wait for each other.
    with one_thread():
        found: list[list[Trained]] = []
        for start in range(0, len(folds), step):
            found += _Block.create(training, folds[start : start + step]).train()
        return found


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Folds that are trained side by side, with everything that training does not change."""

    training: Training
    folds: Sequence[Fold]
    bags: Bags
    first_row: Indices  # (units,) a row of each unit
    features: list[ProjectedFeatures]
    images: Tensor  # (folds, n, width) features of all images
    weights: npt.NDArray[np.float32]  # (folds, units, members): summing to 1 in each network
    truth: Indices  # (folds, units, members)
    start: Start
    shift: npt.NDArray[
        np.float32
    ]  # (folds, members, columns): what the treatment of rare classes adds to scores
    focal: npt.NDArray[np.bool_]  # (folds, members): which learn by the focal loss

    @classmethod
    def create(cls, training: Training, folds: Sequence[Fold]) -> _Block:
        """Learn the features of each fold, and apply them to all images."""
        bags, first_row = Bags(training), training.row_of_unit
        # torch does not support read-only vectors; others are not copied, being the largest array of all.
        vectors = torch.from_numpy(training.X if training.X.flags.writeable else np.array(training.X))
        features = [cls._features(training, bags, fold) for fold in folds]
        images = torch.zeros(len(folds), len(training.X), max(of_fold.width for of_fold in features))
        for place, of_fold in enumerate(features):
            images[place, :, : of_fold.width] = of_fold(vectors)
        members = [fold.members for fold in folds]
        weights = np.zeros((len(folds), training.n_units, len(members[0])), np.float32)
        shift = np.zeros((len(folds), len(members[0]), training.columns), np.float32)
        truth = np.zeros(weights.shape, np.int64)
        for place, of_fold_members in enumerate(members):
            for index, member in enumerate(of_fold_members):
                truth[place, :, index] = np.maximum(training.y[first_row, member.target], 0)
                own, imbalance = truth[place, member.learned, index], member.recipe.imbalance
                natural = training.sample_weight[first_row[member.learned], member.target]
                shift[place, index] = shift_of(own, natural, imbalance, n_classes=training.n_classes)
                weight = case_weights(
                    own, natural, imbalance, n_classes=training.n_classes, seed=folds[place].seed
                )
                weights[place, member.learned, index] = weight / max(weight.sum(dtype=np.float64), 1e-30)
        return cls(
            training=training,
            folds=folds,
            bags=bags,
            first_row=first_row,
            features=features,
            images=images,
            weights=weights,
            truth=truth,
            start=started(
                folds,
                vectors=vectors,
                images=images,
                features=features,
                bags=bags,
                truth=truth,
                weights=weights,
                n_classes=training.n_classes,
            ),
            shift=shift,
            focal=np.array([[each.recipe.imbalance == "focal" for each in own] for own in members]),
        )

    def train(self) -> list[list[Trained]]:
        """Train round by round; a network ends after its last, or when its loss has not fallen for its patience."""
        stack = self.start.stack.copy()
        best_loss = self._held_out_losses(stack)
        best_round = np.zeros(best_loss.shape, np.int64)
        recipes = [[member.recipe for member in fold.members] for fold in self.folds]
        patience = np.array([[recipe.patience for recipe in of_fold] for of_fold in recipes])
        last = np.array([[recipe.last_epoch for recipe in of_fold] for of_fold in recipes])
        stopping = np.array([[len(member.held_out) > 0 for member in fold.members] for fold in self.folds])
        feed = Feed(self.folds)
        generators = [torch.Generator().manual_seed(fold.seed) for fold in self.folds]
        best, going = stack.copy(), last > 0
        stack = stack.take(going)
        for done in counted("epoch", range(1, int(last.max()) + 1)):
            if not going.any():
                break
            self._round(stack, feed, generators, going)
            loss = self._held_out_losses(stack)
            improved = going & (~stopping | (loss < best_loss))
            best_loss[improved], best_round[improved] = loss[improved], done
            best.keep(stack, improved)
            going &= (done - best_round < patience) & (done < last)
            stack = stack.take(going)
        return [self._results(fold, best, best_round[fold]) for fold in range(len(self.folds))]

    def _round(
        self, stack: Stack, feed: Feed, generators: list[torch.Generator], going: npt.NDArray[np.bool_]
    ) -> None:
        """Take each network through its share of steps; folds that have fewer than others rest."""
        per_round = feed.steps_per_round[stack.folds]
        stack.learning(True)
        for step in range(int(per_round.max())):
            live = step < per_round
            chosen = feed.batch(stack.folds, live)
            drops = self._drops(stack.folds, chosen, generators)
            sizes = np.array([max(1, len(units)) for units in chosen])
            gradients: list[Tensor] = []
            position = np.zeros(len(chosen), np.int64)
            for some in parts(self.bags, chosen, self._part_rows(stack)):
                batch = Batch.of(self.bags, some)
                share = np.array([len(self.folds[fold].units) for fold in stack.folds]) / sizes
                weight = self._of_units(self.weights, stack, batch) * (share[:, None] * batch.real)[..., None]
                own = None if drops is None else _part_of(drops, position, batch)
                position += [len(units) for units in some]
                of_units = self._focused(stack, self._losses(stack, batch, own))
                loss = of_units * torch.from_numpy(weight.astype(np.float32))
                found = torch.autograd.grad(loss.sum(), stack.tensors)
                gradients = (
                    [a + b for a, b in zip(gradients, found, strict=True)] if gradients else list(found)
                )
            learning = live[:, None] & going[np.ix_(stack.folds, stack.members)]
            stack.update(gradients, learning, per_round)
        stack.learning(False)

    def _losses(self, stack: Stack, batch: Batch, drops: Tensor | None) -> Tensor:
        """Return (folds, u, members) log losses of the units of a batch."""
        scores = self._scores(stack, batch, drops)
        return losses(scores, torch.from_numpy(self._of_units(self.truth, stack, batch)))

    def _focused(self, stack: Stack, of_units: Tensor) -> Tensor:
        """Return (folds, u, members) log losses, times ``(1 - p)**2`` of networks that learn by the focal loss."""
        focal = self.focal[np.ix_(stack.folds, stack.members)]
        if not focal.any():
            return of_units
        focused = of_units * (-torch.expm1(-of_units)) ** FOCUS
        return torch.where(torch.from_numpy(focal)[:, None], focused, of_units)

    def _natural(self, stack: Stack, scores: Tensor) -> Tensor:
        """Return (folds, u, members, columns) scores without what the treatment of rare classes makes of them."""
        where = np.ix_(stack.folds, stack.members)
        if self.shift[where].any():
            scores = scores - torch.from_numpy(self.shift[where])[:, None]
        for fold, member in np.argwhere(self.focal[where]).tolist():
            natural = focal_to_natural(scores[fold, :, member].numpy())
            scores[fold, :, member] = torch.from_numpy(natural.astype(np.float32))
        return scores

    def _scores(self, stack: Stack, batch: Batch, drops: Tensor | None = None) -> Tensor:
        """Return (folds, u, members, columns) scores of the units of a batch."""
        outside = self.start.of_images
        if outside is not None:
            rows = torch.from_numpy(batch.rows)
            members = torch.from_numpy(stack.members)
            outside = torch.stack(
                [outside[fold][own][:, members] for fold, own in zip(stack.folds.tolist(), rows, strict=True)]
            )
        return forward(stack, self._gathered(stack, batch), outside, torch.from_numpy(batch.lengths), drops)

    def _gathered(self, stack: Stack, batch: Batch) -> Tensor:
        """Return (folds, n, width) projected features of the images of a batch."""
        rows = torch.from_numpy(batch.rows)
        gathered = torch.empty(*batch.rows.shape, self.images.shape[2])
        for place, fold in enumerate(stack.folds):
            torch.index_select(self.images[fold], 0, rows[place], out=gathered[place])
        return gathered

    def _of_units(
        self, values: npt.NDArray[np.generic], stack: Stack, batch: Batch
    ) -> npt.NDArray[np.generic]:
        """Return (folds, u, members) of (all folds, units, all members)."""
        of_units: npt.NDArray[np.generic] = values[stack.folds[:, None], batch.units][:, :, stack.members]
        return of_units

    def _drops(
        self, folds: Indices, chosen: list[Indices], generators: list[torch.Generator]
    ) -> Tensor | None:
        """Return dropout's (folds, u, width) factors, the same for all images of a unit and all networks of a fold."""
        share = self.folds[0].members[0].recipe.dropout
        if share == 0:
            return None
        factors = torch.zeros(len(folds), max(map(len, chosen)), self.images.shape[2])
        for place, (fold, units) in enumerate(zip(folds, chosen, strict=True)):
            own = factors[place, : len(units), : self.features[fold].width]
            own.copy_(torch.rand(own.shape, generator=generators[fold]))
        return (factors >= share) / (1 - share)

    def _held_out_losses(self, stack: Stack) -> npt.NDArray[np.float64]:
        """Return the (all folds, all members) weighted log losses of the held-out units; infinite without any."""
        total, weights = (np.zeros(self.weights.shape[::2]) for _ in range(2))
        held = np.zeros(self.weights.shape, np.float32)
        for fold in stack.folds:
            for index, member in enumerate(self.folds[fold].members):
                rows = self.first_row[member.held_out]
                held[fold, member.held_out, index] = self.training.sample_weight[rows, member.target]
        chosen = [np.flatnonzero(held[fold][:, stack.members].any(1)) for fold in stack.folds]
        where = np.ix_(stack.folds, stack.members)
        for some in parts(self.bags, chosen, self._part_rows(stack)) if max(map(len, chosen)) else ():
            batch = Batch.of(self.bags, some)
            weight = self._of_units(held, stack, batch) * batch.real[..., None]
            with torch.no_grad():
                scores = self._natural(stack, self._scores(stack, batch))
                truth = torch.from_numpy(self._of_units(self.truth, stack, batch))
                found = losses(scores, truth).double().numpy()
            total[where] += (found * weight).sum(1)
            weights[where] += weight.sum(1, dtype=np.float64)
        mean = np.divide(total, weights, out=np.full(total.shape, np.inf), where=weights > 0)
        return np.where(np.isnan(mean), np.inf, mean)

    def _results(self, fold: int, best: Stack, best_round: Indices) -> list[Trained]:
        """Score the units that a fold is to score by the best weights of its networks."""
        only = np.zeros(self.weights.shape[::2], np.bool_)
        only[fold] = True
        own = best.take(only)
        scored = self.folds[fold].scored
        scores = np.zeros((len(scored), len(own.members), self.training.columns), np.float32)
        done = 0
        for some in parts(self.bags, [scored], self._part_rows(own)) if len(scored) else ():
            batch = Batch.of(self.bags, some)
            with torch.no_grad():
                found = self._natural(own, self._scores(own, batch))
            scores[done : done + len(some[0])] = found[0].numpy()
            done += len(some[0])
        return [
            Trained(
                self._stated(
                    own.network(0, index, self.features[fold], self.start.outside[fold][:, index]),
                    self.shift[fold, own.members[index]],
                ),
                scores[:, index],
                int(best_round[index]),
            )
            for index in range(len(own.members))
        ]

    @staticmethod
    def _stated(network: AttentionNetwork, shift: npt.NDArray[np.float32]) -> AttentionNetwork:
        """Return the network such that it states the classes as they are distributed."""
        return replace(network, bias=network.bias - shift) if shift.any() else network

    @staticmethod
    def _features(training: Training, bags: Bags, fold: Fold) -> ProjectedFeatures:
        recipe = fold.members[0].recipe
        return ProjectedFeatures.fit(
            training.X,
            bags.rows(fold.units),
            components=recipe.components,
            positions=recipe.positions,
            layer_norm=recipe.layer_norm,
            seed=fold.seed,
        )

    def _part_rows(self, stack: Stack) -> int:
        return max(1, _PART_CELLS // stack.columns)


def _part_of(drops: Tensor, position: Indices, batch: Batch) -> Tensor:
    """Return the (folds, u, width) factors of the units of a part, which begin at a position of each fold's batch."""
    at = position[:, None] + np.arange(batch.units.shape[1])
    within = torch.from_numpy(np.minimum(at, drops.shape[1] - 1))
    return torch.stack([of_fold[own] for of_fold, own in zip(drops, within, strict=True)])
