"""Batches of rows for many networks: each in its own order, padded to a common length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heads.base import Training
from heads.solvers.imbalance import case_weights
from heads.solvers.mlp_network import NetworkRecipe

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One network to train.

    Parameters
    ----------
    recipe
        Shape and settings.
    target
        Column of the labels.
    rows
        (k,) int64 rows to learn from, labelled.
    held_out
        (h,) int64 labelled rows whose log loss decides when to stop; none trains to the end.
    scored
        (s,) int64 rows to score when trained.
    seed
        Of first weights, order of rows and dropout.
    """

    recipe: NetworkRecipe
    target: int
    rows: Indices
    held_out: Indices
    scored: Indices
    seed: int


class Feed:
    """Batches of rows, each network's in its own shuffled order."""

    def __init__(self, training: Training, problems: Sequence[Problem]) -> None:
        self._size = min(problems[0].recipe.batch_size, max(len(problem.rows) for problem in problems))
        self._weights = [
            case_weights(
                training.y[problem.rows, problem.target],
                training.sample_weight[problem.rows, problem.target],
                problem.recipe.imbalance,
                n_classes=training.n_classes,
                seed=problem.seed,
            )
            for problem in problems
        ]
        # Weights of mean one: a learning rate means the same whatever their scale.
        self._weights = [weight / weight.mean(dtype=np.float64) for weight in self._weights]
        self._rows = [problem.rows for problem in problems]
        self._orders = [
            _batches(len(problem.rows), problem.recipe.batch_size, seed=problem.seed) for problem in problems
        ]
        self.steps_per_round = np.array([_steps_per_round(problem) for problem in problems])

    def batch(self, members: Indices, live: npt.NDArray[np.bool_]) -> tuple[Indices, npt.NDArray[np.float32]]:
        """Return (models, size) rows and their weights in the loss, 0 for padding and for networks that rest."""
        rows = np.zeros((len(members), self._size), np.int64)
        weight = np.zeros((len(members), self._size), np.float32)
        for place, member in enumerate(members):
            if not live[place]:
                continue
            chosen = next(self._orders[member])
            rows[place, : len(chosen)] = self._rows[member][chosen]
            weight[place, : len(chosen)] = self._weights[member][chosen] / len(chosen)
        return rows, weight


def _batches(count: int, size: int, *, seed: int) -> Iterator[Indices]:
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(count)
        for start in range(0, count, size):
            yield order[start : start + size]


def _steps_per_round(problem: Problem) -> int:
    """Return the steps of an epoch, or more where all epochs would be fewer than the minimum."""
    recipe = problem.recipe
    return max(
        math.ceil(len(problem.rows) / recipe.batch_size), math.ceil(recipe.minimum_steps / recipe.epochs)
    )


def padded(which: Sequence[Indices], step: int) -> Iterator[tuple[Indices, npt.NDArray[np.float64]]]:
    """Yield (models, k) rows of each network and a mask: 1 for real rows, 0 for padding."""
    longest = max(len(rows) for rows in which)
    for start in range(0, longest, step):
        parts = [rows[start : start + step] for rows in which]
        width = max(len(part) for part in parts)
        rows = np.zeros((len(which), width), np.int64)
        mask = np.zeros((len(which), width))
        for place, part in enumerate(parts):
            rows[place, : len(part)], mask[place, : len(part)] = part, 1
        yield rows, mask
