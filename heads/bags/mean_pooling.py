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
# Of the loss's distance from its minimum, in nats: far below what a unit's score is known to.
_TOLERANCE = 1e-7
# Weight of a class that no unit has, as a share of a unit.
_PSEUDO_COUNT = 1e-3


def mean_pooling(
    means: Tensor, truth: npt.NDArray[np.int64], weight: npt.NDArray[np.float64], l2: Tensor, *, outputs: int
) -> tuple[Tensor, Tensor]:
    """Minimise ``sum(weight * log loss) + l2 / 2 * |w|**2`` for many problems on the same means.

    The loss's curvature has a bound that does not move (Böhning & Lindsay 1988, doi 10.1007/BF00049423), so one
    factorisation serves all steps; they are accelerated as Nesterov's, anew where a step turns back.

    Parameters
    ----------
    means
        (units, width) float64 mean features.
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
    units, width = means.shape
    rows = torch.cat([means, torch.ones(units, 1, dtype=torch.float64)], 1)
    shares = torch.from_numpy(weight)
    penalty = torch.cat([l2[:, None].expand(-1, width), torch.zeros(len(l2), 1, dtype=torch.float64)], 1)
    factors = _curvature(rows, shares, penalty, 0.25 if outputs == 1 else 0.5)
    wanted = torch.from_numpy(truth.astype(np.float64))[..., None]
    if outputs > 1:
        wanted = torch.nn.functional.one_hot(torch.from_numpy(truth), outputs).double()

    def gradient(at: Tensor) -> Tensor:
        scores = (rows @ at.transpose(0, 1).reshape(width + 1, -1)).view(units, len(l2), outputs)
        found = torch.sigmoid(scores) if outputs == 1 else torch.softmax(scores, 2)
        residual = ((found - wanted) * shares[..., None]).reshape(units, -1)
        of_loss = (rows.T @ residual).view(width + 1, len(l2), outputs).transpose(0, 1)
        return of_loss + penalty[..., None] * at

    at = torch.zeros(len(l2), width + 1, outputs, dtype=torch.float64)
    at[:, -1] = _prior(wanted, shares, outputs)
    found = _accelerated(at, gradient, factors)
    return found[:, :-1], found[:, -1]


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


def _curvature(rows: Tensor, shares: Tensor, penalty: Tensor, bound: float) -> Tensor:
    """Return (problems, width + 1, width + 1) Cholesky factors of the bound on the loss's curvature."""
    products: dict[bytes, Tensor] = {}
    factors = []
    for problem in range(shares.shape[1]):
        share = shares[:, problem]
        key = share.numpy().tobytes()
        if key not in products:
            products[key] = bound * (rows * share[:, None]).T @ rows
        # A constant column has no curvature but its penalty's; rounding must not make that negative.
        rounding = 1e-12 * products[key].diagonal().max()
        factors.append(torch.linalg.cholesky(products[key] + torch.diag(penalty[problem] + rounding)))
    return torch.stack(factors)


def _prior(wanted: Tensor, shares: Tensor, outputs: int) -> Tensor:
    """Return (problems, outputs) logits of the classes' shares, a class never seen not at minus infinity."""
    counts = (wanted * shares[..., None]).sum(0)
    little = _PSEUDO_COUNT / (shares > 0).sum(0).clamp_min(1)[:, None]
    if outputs == 1:
        return torch.log(counts + little) - torch.log(1 - counts.clamp_max(1) + little)
    return torch.log(counts + little)


def _accelerated(at: Tensor, gradient: Callable[[Tensor], Tensor], factors: Tensor) -> Tensor:
    """Take steps of the bound's curvature with momentum until no problem's step changes its loss."""
    before, ahead = at, at
    momentum = torch.ones(len(at), 1, 1, dtype=torch.float64)
    for _ in range(_ITERATIONS):
        slope = gradient(ahead)
        step = torch.cholesky_solve(slope, factors)
        after = ahead - step
        if float((slope * step).sum((1, 2)).max()) < _TOLERANCE:
            return after
        turned = ((ahead - after) * (after - before)).sum((1, 2), keepdim=True) > 0
        momentum = torch.where(turned, 1.0, momentum)
        following = (1 + torch.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / following * (after - before)
        before, momentum = after, following
    return before
