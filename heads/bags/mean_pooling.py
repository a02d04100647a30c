"""Where attention starts: at the ridge-penalised logistic regression on the means of units, all images weighing alike.

Mean pooling is what attention has to beat on few units (Harvey et al. 2026, arXiv 2604.26807). A network that starts
there can only be stopped where it is better, and with one image a unit it is a linear head.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ITERATIONS = 200
# Of what a step gains, in nats: far below what a held-out loss is known to.
_TOLERANCE = 1e-7
# Weight of a class that no unit has, as a share of a unit.
_PSEUDO_COUNT = 1e-3
_ROWS = 512
# Axes with less of the largest axis's variance are rounding.
_LEAST_VALUE = 1e-10


def mean_pooling(
    means: Tensor, truth: npt.NDArray[np.int64], weight: npt.NDArray[np.float64], l2: Tensor, *, outputs: int
) -> tuple[Tensor, Tensor]:
    """Minimise ``sum(weight * log loss) + l2 / 2 * |w|**2`` for many problems on the same means.

    The loss's curvature has a bound that does not move (Böhning & Lindsay 1988, doi 10.1007/BF00049423), and one for
    the largest weight of each unit bounds it in all problems: in its eigenbasis every problem's steps are divisions.
    They are accelerated as Nesterov's, anew where a step turns back.

    Parameters
    ----------
    means
        (units, width) float32 mean features; used up.
    truth
        (units, problems) int64 classes; any where the weight is 0.
    weight
        (units, problems) float64, summing to 1 in each problem.
    l2
        (problems,) float64 penalties of the weights; the intercept has none.
    outputs
        1: logits of the second class; more: one for each class.

    Returns
    -------
    tuple of Tensor
        (problems, width, outputs) and (problems, outputs) float64.
    """
    shares = torch.from_numpy(weight)
    largest = shares.amax(1)
    center = _weighted_mean(means, largest)
    means -= center.float()
    values, basis = _eigenbasis(means, largest)
    along = _turned(means, basis.float())
    bound = 0.25 if outputs == 1 else 0.5
    curvature = torch.cat([values[None] * bound + l2[:, None], (bound * largest.sum()).expand(len(l2), 1)], 1)
    penalty = torch.cat([l2[:, None].expand(-1, len(values)), torch.zeros(len(l2), 1)], 1)
    wanted = torch.from_numpy(truth.astype(np.float64))[..., None]
    if outputs > 1:
        wanted = torch.nn.functional.one_hot(torch.from_numpy(truth), outputs).double()

    def gradient(at: Tensor) -> Tensor:
        flat = at[:, :-1].transpose(0, 1).reshape(len(values), -1)
        scores = (along @ flat.float()).double().view(len(along), len(l2), outputs) + at[:, -1]
        found = torch.sigmoid(scores) if outputs == 1 else torch.softmax(scores, 2)
        residual = (found - wanted) * shares[..., None]
        of_loss = (along.T @ residual.reshape(len(along), -1).float()).double()
        of_loss = of_loss.view(len(values), len(l2), outputs).transpose(0, 1)
        return torch.cat([of_loss, residual.sum(0)[:, None]], 1) + penalty[..., None] * at

    at = torch.zeros(len(l2), len(values) + 1, outputs, dtype=torch.float64)
    at[:, -1] = _prior(wanted, shares, outputs)
    found = _accelerated(at, gradient, curvature[..., None])
    weights = basis @ found[:, :-1]
    return weights, found[:, -1] - center @ weights


def thresholds(
    scores: npt.NDArray[np.float64],
    truth: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float64],
    n_classes: int,
) -> npt.NDArray[np.float64]:
    """Return (n_classes - 1,) rising thresholds at which ``sigmoid(threshold - score)`` states the classes' shares.

    Parameters
    ----------
    scores
        (units,) float64.
    truth, weight
        (units,) of one problem, as `mean_pooling`.
    n_classes
        Number of classes.
    """
    counts = np.bincount(truth, weight, minlength=n_classes) + _PSEUDO_COUNT / max(1, int((weight > 0).sum()))
    at_most = np.cumsum(counts / counts.sum())[:-1]
    low = np.full(n_classes - 1, scores.min() - 30.0)
    high = np.full(n_classes - 1, scores.max() + 30.0)
    share = weight / weight.sum()
    # By halving: the shares rise with the threshold, and nothing can overshoot.
    for _ in range(60):
        middle = (low + high) / 2
        stated = share @ (1 / (1 + np.exp(np.clip(scores[:, None] - middle, -700, 700))))
        low, high = np.where(stated < at_most, middle, low), np.where(stated < at_most, high, middle)
    return np.asarray((low + high) / 2, np.float64)


def _weighted_mean(rows: Tensor, weight: Tensor) -> Tensor:
    """Return the (width,) float64 mean of float32 rows."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _ROWS):
        total += weight[start : start + _ROWS] @ rows[start : start + _ROWS].double()
    return total / weight.sum()


def _eigenbasis(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return (k,) values and (width, k) orthonormal vectors of the weighted second moments of (n, width) rows.

    Those with next to no value are left out: a penalised solution has nothing there.
    """
    root = weight.sqrt()[:, None]
    few = len(rows) < rows.shape[1]
    if few:
        scaled = rows.double() * root
        products = scaled @ scaled.T
    else:
        products = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS].double() * root[start : start + _ROWS]
            products.addmm_(some.T, some)
    values, vectors = torch.linalg.eigh(products)
    kept = values > _LEAST_VALUE * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
    values, vectors = values[kept], vectors[:, kept]
    return values, (scaled.T @ vectors) / values.sqrt() if few else vectors


def _turned(rows: Tensor, basis: Tensor) -> Tensor:
    """Return (n, k) rows in a basis of (width, k), k at most width, in the memory of the (n, width) rows."""
    k = basis.shape[1]
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        rows[some, :k] = rows[some] @ basis
    return rows[:, :k]


def _prior(wanted: Tensor, shares: Tensor, outputs: int) -> Tensor:
    """Return (problems, outputs) logits of the classes' shares, a class never seen not at minus infinity."""
    counts = (wanted * shares[..., None]).sum(0)
    little = _PSEUDO_COUNT / (shares > 0).sum(0).clamp_min(1)[:, None]
    if outputs == 1:
        return torch.log(counts + little) - torch.log(1 - counts.clamp_max(1) + little)
    return torch.log(counts + little)


def _accelerated(at: Tensor, gradient: Callable[[Tensor], Tensor], curvature: Tensor) -> Tensor:
    """Take steps of the bound's curvature with momentum until no problem's step changes its loss."""
    before, ahead = at, at
    momentum = torch.ones(len(at), 1, 1, dtype=torch.float64)
    for _ in range(_ITERATIONS):
        slope = gradient(ahead)
        step = slope / curvature
        after = ahead - step
        if float((slope * step).sum((1, 2)).max()) < _TOLERANCE:
            return after
        turned = ((ahead - after) * (after - before)).sum((1, 2), keepdim=True) > 0
        momentum = torch.where(turned, 1.0, momentum)
        following = (1 + torch.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / following * (after - before)
        before, momentum = after, following
    return before
