"""Losses of images with missing labels: one binary question a target, or one choice of a class a target.

A loss is a sum over labelled cells; it is divided by the weight of the whole batch, so that a batch that is computed in
pieces, or on several devices, has the gradient of the batch as one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from embedstore.view import MISSING


def class_weights_of(y: npt.NDArray[np.int64], *, n_classes: int, rule: str) -> npt.NDArray[np.float32]:
    """Return the weight of each class of each target, (targets, classes).

    Parameters
    ----------
    y
        (n, targets) labels that are learned from, `MISSING` where there is none.
    n_classes
        Number of classes.
    rule
        ``none``: all 1; ``balanced``: labelled cells of the target / (classes that it has * cells of the class).
    """
    weights = np.ones((y.shape[1], n_classes), np.float32)
    if rule == "none":
        return weights
    for target, column in enumerate(y.T):
        counts = np.bincount(column[column != MISSING], minlength=n_classes)
        there = counts > 0
        weights[target, there] = counts.sum() / (there.sum() * counts[there])
    return weights


def cell_weights(y: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    """Return the weight of each cell of (n, targets) labels; 0 where there is no label."""
    labelled = y != MISSING
    targets = torch.arange(y.shape[1], device=y.device).expand_as(y)
    return torch.where(labelled, class_weights[targets, y.clamp(min=0)], 0.0)


def summed_loss(logits: torch.Tensor, y: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum of the losses of labelled cells.

    Parameters
    ----------
    logits
        (n, targets) for two classes, the log odds of the second; else (n, targets * classes).
    y
        (n, targets) int64, `MISSING` where there is no label.
    class_weights
        (targets, classes).
    """
    targets, classes = class_weights.shape
    weights = cell_weights(y, class_weights)
    known = y.clamp(min=0)
    if classes == 2:
        losses = binary_cross_entropy_with_logits(logits.float(), known.float(), reduction="none")
    else:
        rows = logits.float().reshape(-1, classes)
        losses = cross_entropy(rows, known.reshape(-1), reduction="none").reshape(-1, targets)
    return (losses * weights).sum()


def probabilities_of(
    logits: npt.NDArray[np.float32], *, n_targets: int, n_classes: int
) -> npt.NDArray[np.float64]:
    """Return (n, targets, classes) probabilities of logits."""
    wide = logits.astype(np.float64)
    if n_classes == 2:
        positive = 1 / (1 + np.exp(-wide))
        return np.stack([1 - positive, positive], axis=2)
    rows = wide.reshape(-1, n_targets, n_classes)
    shares = np.exp(rows - rows.max(axis=2, keepdims=True))
    found: npt.NDArray[np.float64] = shares / shares.sum(axis=2, keepdims=True)
    return found


def log_odds_of_classes(y: npt.NDArray[np.int64], *, n_classes: int) -> npt.NDArray[np.float32]:
    """Return what a head that knows nothing should say: log odds, or logs, of the shares of the classes; (outputs,)."""
    found = []
    for column in y.T:
        counts = np.bincount(column[column != MISSING], minlength=n_classes) + 0.5
        shares = np.log(counts / counts.sum())
        found.append(shares[1:] - shares[:1] if n_classes == 2 else shares)
    return np.concatenate(found).astype(np.float32)
