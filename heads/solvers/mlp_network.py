"""Many small networks as one: weights stacked along a first axis, so that one batched product moves them all.

A network here is ReLU layers on normalised vectors. The last layer starts at zero and its bias at the classes'
frequencies: an untrained network states the prevalence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedstore.errors import UsageError
from heads.exact_products import reproducible_norms, reproducible_product
from heads.scores import Floats
from heads.solvers.imbalance import require_imbalance
from heads.solvers.logistic_rows import NORMALISATIONS, Normalisation

Schedule = Literal["cosine", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "constant")


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe:
    """How one network is shaped and trained; the parameters of `heads.estimators.mlp.MlpHead`."""

    hidden: tuple[int, ...]
    normalisation: Normalisation
    dropout: tuple[float, ...]
    learning_rate: float
    weight_decay: float
    l2: float
    batch_size: int
    epochs: int
    minimum_steps: int
    patience: int
    stop_after: int | None
    schedule: Schedule
    imbalance: str = "none"

    @property
    def shape(self) -> tuple[tuple[int, ...], int, int]:
        """What networks must share to be trained together."""
        return self.hidden, self.batch_size, self.epochs

    @property
    def last_epoch(self) -> int:
        """The epoch that training ends with, 0 for none."""
        return self.epochs if self.stop_after is None else self.stop_after

    def check(self) -> NetworkRecipe:
        """Return itself; raises UsageError naming the parameter that is wrong."""
        rules = {
            "hidden": bool(self.hidden) and min(self.hidden) >= 1,
            "normalisation": self.normalisation in NORMALISATIONS,
            "dropout": len(self.dropout) == len(self.hidden) and all(0 <= p < 1 for p in self.dropout),
            "learning_rate": self.learning_rate > 0,
            "weight_decay": self.weight_decay >= 0,
            "l2": self.l2 >= 0,
            "batch_size": self.batch_size >= 1,
            "epochs": self.epochs >= 1,
            "minimum_steps": self.minimum_steps >= 0,
            "patience": self.patience >= 1,
            "stop_after": 0 <= self.last_epoch <= self.epochs,
            "schedule": self.schedule in SCHEDULES,
        }
        for name, holds in rules.items():
            if not holds:
                raise UsageError(f"mlp: {name} cannot be {getattr(self, name)!r}; {_WANTED[name]}")
        require_imbalance(self.imbalance, head="mlp")
        return self


# Rows that are widened at once.
_ROWS = 1024
_WANTED = {
    "hidden": "it takes one or more layer widths of 1 or more",
    "normalisation": f"it must be one of {', '.join(NORMALISATIONS)}",
    "dropout": "it takes one share from 0 to below 1, or one for each hidden layer",
    "learning_rate": "it must be above 0",
    "weight_decay": "it must be 0 or more",
    "l2": "it must be 0 or more",
    "batch_size": "it must be 1 or more",
    "epochs": "it must be 1 or more",
    "minimum_steps": "it must be 0 or more",
    "patience": "it must be 1 or more",
    "stop_after": "it must be from 0 to epochs, or None for epochs",
    "schedule": f"it must be one of {', '.join(SCHEDULES)}",
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """One trained network.

    Parameters
    ----------
    weights
        Of each layer, (fan_in, fan_out) float32 or float16.
    biases
        Of each layer, (fan_out,), of the same type.
    mean, factor
        (dim,) float32: vectors are used as ``(x - mean) * factor``, with ``l2`` after division by their
        length.
    normalisation
        As its recipe.
    """

    weights: tuple[npt.NDArray[np.floating], ...]
    biases: tuple[npt.NDArray[np.floating], ...]
    mean: npt.NDArray[np.float32]
    factor: npt.NDArray[np.float32]
    normalisation: Normalisation

    def scores(self, X: npt.NDArray[np.float32]) -> Floats:
        """Return (n, columns) logits; each row has the same bits in every batch."""
        return self._layers(X, len(self.weights))

    def hidden(self, X: npt.NDArray[np.float32]) -> Floats:
        """Return (n, width) outputs of the last hidden layer; each row has the same bits in every batch."""
        return self._layers(X, len(self.weights) - 1)

    def _layers(self, X: npt.NDArray[np.float32], count: int) -> Floats:
        parts = [self._forward(X[start : start + _ROWS], count) for start in range(0, len(X), _ROWS)]
        return np.concatenate([np.zeros((0, self.biases[count - 1].size)), *parts])

    def _forward(self, X: npt.NDArray[np.float32], count: int) -> Floats:
        """Return what the first layers make of rows, at least one."""
        rows = X.astype(np.float64)
        if self.normalisation == "l2":
            lengths = reproducible_norms(X)
            rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
        rows = (rows - self.mean) * self.factor
        last = len(self.weights) - 1
        layers = list(zip(self.weights, self.biases, strict=True))[:count]
        for layer, (weight, bias) in enumerate(layers):
            rows = reproducible_product(rows, weight.T.astype(np.float64)) + bias
            if layer < last:
                rows = np.maximum(rows, 0)
        return rows


def normaliser(
    X: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float32],
    normalisation: Normalisation,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean and factor of `Network`, fitted on some rows of `X` by their (k,) weights.

    ``l2`` multiplies unit vectors by the root of their dimension: entries of size one, as after
    standardising, so that one learning rate suits both.
    """
    dim = X.shape[1]
    if normalisation != "standardise":
        factor = np.sqrt(dim) if normalisation == "l2" else 1.0
        return np.zeros(dim, np.float32), np.full(dim, factor, np.float32)
    shares = weight.astype(np.float64) / weight.sum(dtype=np.float64)
    mean, square = np.zeros(dim), np.zeros(dim)
    origin = X[rows[0]].astype(np.float64)
    # Block by block, about one of the rows: no copy of all vectors, and no cancelling of large means.
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        centred = X[rows[some]] - origin
        mean += shares[some] @ centred
        square += shares[some] @ np.square(centred)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    mean += origin
    # Rounding leaves a constant column a spread of its last digit; dividing by that would make noise.
    constant = deviation <= 10 * np.finfo(np.float32).eps * np.abs(mean)
    return mean.astype(np.float32), np.where(constant, 1, 1 / np.where(constant, 1, deviation)).astype(
        np.float32
    )


def untrained(sizes: Sequence[int], prior: npt.NDArray[np.float32], *, seed: int) -> list[Tensor]:
    """Return weight (fan_in, fan_out) and bias (1, fan_out) of each layer in turn.

    Hidden weights are He-normal (arXiv 1502.01852); `prior` is the output bias.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        tensors.append(torch.randn(fan_in, fan_out, generator=generator) * (2 / fan_in) ** 0.5)
        tensors.append(torch.zeros(1, fan_out))
    return [*tensors, torch.zeros(sizes[-2], sizes[-1]), torch.from_numpy(prior)[None].clone()]


def forward(tensors: Sequence[Tensor], rows: Tensor, drops: Sequence[Tensor] = ()) -> Tensor:
    """Return (models, n, columns) logits.

    Parameters
    ----------
    tensors
        Stacked weights (models, fan_in, fan_out) and biases (models, 1, fan_out) of each layer in turn.
    rows
        (models, n, dim), normalised.
    drops
        Factors of each hidden layer, (models, n, width); none in use.
    """
    layers = len(tensors) // 2
    for layer in range(layers):
        rows = torch.baddbmm(tensors[2 * layer + 1], rows, tensors[2 * layer])
        if layer < layers - 1:
            rows = torch.relu(rows)
            if drops:
                rows = rows * drops[layer]
    return rows


def losses(scores: Tensor, truth: Tensor) -> Tensor:
    """Return (models, n) log losses of (models, n, columns) logits for (models, n) int64 classes."""
    if scores.shape[2] == 1:
        logits = scores[:, :, 0]
        return torch.nn.functional.softplus(logits) - logits * truth
    return torch.logsumexp(scores, 2) - scores.gather(2, truth[:, :, None])[:, :, 0]
