"""How much each part of a blend counts: non-negative weights by log loss, pulled to equal ones by few patients.

The score of a unit is the sum of its parts' calibrated log odds, each times its weight (a logarithmic opinion pool,
Genest & Zidek 1986, Statistical Science 1, 114; fitted out of fold it is stacking, Wolpert 1992, Neural Networks 5,
241; non-negative as Breiman 1996, Machine Learning 24, 49, found it must be). The sum of the weights is free: parts
that err apart are surer together than each alone, and those that say the same are not. A ridge around equal weights
keeps few patients from choosing; its strength falls with the number of patients of the rarest class.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from heads.scores import Floats, log_probabilities

# By simulation (`benchmarks/blend_weights.py`), between parts that are alike, of which equal weights are the best, and
# parts of which one is far better: with 20 patients of each class weights are near equal, with 200 nearly free.
SHRINKAGE = 300.0
_MOST_STEPS = 100
# In nats of the mean loss, far below the last digit that is shown.
_GAP = 1e-13
_SUFFICIENT = 1e-4


def ridge_of(y: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], *, n_classes: int) -> float:
    """Return the strength of the pull to equal weights, for a mean loss of these units.

    In units of the summed loss of patients it is `SHRINKAGE` divided by the patients of the rarest class.

    Parameters
    ----------
    y
        (n,) int64 labels, all known.
    groups
        (n,) int64: the patient of each unit.
    n_classes
        Number of classes.
    """
    rarest = min(len(np.unique(groups[y == k])) for k in range(n_classes))
    return SHRINKAGE / max(rarest, 1) / len(np.unique(groups))


def fit_weights(log_odds: Floats, y: npt.NDArray[np.int64], *, ridge: float) -> Floats:
    """Find the non-negative weights with the smallest mean log loss of the blend, with a ridge around equal ones.

    Minimises ``mean(log loss) + ridge / 2 * sum((weights - 1 / parts) ** 2)`` by Newton's steps under the constraint,
    each of them a non-negative least-squares problem that is solved exactly.

    Parameters
    ----------
    log_odds
        (n, parts, columns) of units by heads that never saw their patients.
    y
        (n,) int64 labels, all known.
    ridge
        Above 0; `ridge_of`.

    Returns
    -------
    ndarray
        (parts,) float64, 0 or more each. Of one part it is 1: its answer stands as it is.

    Examples
    --------
    >>> sure, unsure = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([1.0, -1.0, 1.0, -1.0])
    >>> fit_weights(np.stack([sure, unsure], axis=1)[..., None], np.array([0, 0, 1, 1]), ridge=0.1).round(2)
    array([1.64, 0.63])
    """
    parts = log_odds.shape[1]
    equal = np.full(parts, 1 / parts)
    if parts == 1:
        return equal
    weights = equal
    value, slope, curvature = _objective(weights, log_odds, y, equal, ridge)
    for _ in range(_MOST_STEPS):
        # Lower triangular L with L L' = curvature: the model of the loss is |L' v - b| squared, up to a constant.
        factor = np.linalg.cholesky(curvature)
        wanted, _ = nnls(factor.T, solve_triangular(factor, curvature @ weights - slope, lower=True))
        step = wanted - weights
        gain = -float(slope @ step)
        if gain <= _GAP:
            break
        share = 1.0
        while True:
            found = _objective(weights + share * step, log_odds, y, equal, ridge)
            if found[0] <= value - _SUFFICIENT * share * gain or share * gain <= _GAP:
                break
            share /= 2
        weights = np.maximum(weights + share * step, 0.0)
        value, slope, curvature = found
    return weights


def _objective(
    weights: Floats, log_odds: Floats, y: npt.NDArray[np.int64], center: Floats, ridge: float
) -> tuple[float, Floats, Floats]:
    """Return the penalised mean log loss with its first and second derivatives by the weights."""
    n, parts, columns = log_odds.shape
    logs = log_probabilities(np.einsum("npc,p->nc", log_odds, weights))
    probabilities = np.exp(logs)
    off = weights - center
    value = -float(logs[np.arange(n), y].mean()) + ridge / 2 * float(off @ off)
    if columns == 1:
        odds, p = log_odds[:, :, 0], probabilities[:, 1]
        slope = odds.T @ (p - y) / n
        curvature = (odds * (p * (1 - p))[:, None]).T @ odds / n
    else:
        mean = np.einsum("npc,nc->np", log_odds, probabilities)
        slope = (mean - log_odds[np.arange(n), :, y]).mean(axis=0)
        around = log_odds - mean[:, :, None]
        curvature = np.einsum("npc,nqc,nc->pq", around, around, probabilities, optimize=True) / n
    return value, slope + ridge * off, curvature + ridge * np.eye(parts)
