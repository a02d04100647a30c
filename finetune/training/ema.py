"""The running mean of the weights that learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightMean:
    """An exponential moving average of a model's trained weights; early on it forgets faster.

    Parameters
    ----------
    model
        The model; only weights that learn are followed.
    factor
        Share of the mean that a step keeps; of step t at most (1 + t) / (10 + t), as in TensorFlow's
        ``ExponentialMovingAverage`` with ``num_updates``.
    """

    def __init__(self, model: nn.Module, factor: float) -> None:
        self.factor = factor
        self.steps = 0
        self.weights = {
            name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad
        }

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        kept = min(self.factor, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name in self.weights:
                    self.weights[name].lerp_(weight.detach(), 1 - kept)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Let the model answer with the mean inside the block."""
        own = {name: weight for name, weight in model.named_parameters() if name in self.weights}
        before = {name: weight.detach().clone() for name, weight in own.items()}
        load_weights(own, self.weights)
        try:
            yield
        finally:
            load_weights(own, before)


def load_weights(weights: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    """Copy values into weights of the same names."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])
