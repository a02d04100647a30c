"""Rare classes in training, and the way back to the probabilities that are meant.

``balanced`` weighs cases so that every class has the same total, ``oversample`` draws them so, and ``focal`` multiplies
the log loss of a case by ``(1 - p)**2`` (Lin et al. 2017, arXiv 1708.02002). Each learns something else than the
probability of a class, and in each what it learns leads back to it exactly: weights w_k on class k make
``p_k * w_k`` (Elkan 2001, IJCAI, theorem 2), and the minimiser of the focal loss is v with p_k in proportion to
``v_k / ((1 - v_k)**2 - 2 * (1 - v_k) * v_k * log(v_k))`` (Charoenphakdee et al. 2021, arXiv 2011.09172, theorem 11;
set the derivative of the expected loss under the constraint that v sums to 1 to zero).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.scores import Floats, log_probabilities

Imbalance = Literal["none", "balanced", "oversample", "focal"]
IMBALANCES: tuple[Imbalance, ...] = ("none", "balanced", "oversample", "focal")
FOCUS = 2.0
_LEAST = 1e-15
_STEPS = 100


def require_imbalance(name: str, *, head: str) -> None:
    """Refuse a name that is none of `IMBALANCES`; raises UsageError."""
    if name not in IMBALANCES:
        raise UsageError(f"{head}: imbalance must be one of {', '.join(IMBALANCES)}; found {name!r}")


def case_weights(
    y: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float32],
    imbalance: str,
    *,
    n_classes: int,
    seed: int,
) -> npt.NDArray[np.float32]:
    """Return the weight of each case in training, (n,) float32.

    Parameters
    ----------
    y
        (n,) int64 classes.
    weight
        (n,) float32 that the cases have anyway.
    imbalance
        Any of `IMBALANCES`; of ``oversample`` the weight is how often a case is drawn, with replacement.
    n_classes
        Number of classes.
    seed
        Of the draw.
    """
    if imbalance not in ("balanced", "oversample"):
        return weight
    of_case = _class_weights(y, weight, n_classes)[y] * weight
    if imbalance == "balanced":
        return of_case.astype(np.float32)
    total = of_case.sum(dtype=np.float64)
    drawn = np.random.default_rng(seed).multinomial(len(y), of_case.astype(np.float64) / total)
    return drawn.astype(np.float32)


def shift_of(
    y: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float32],
    imbalance: str,
    *,
    n_classes: int,
) -> npt.NDArray[np.float32]:
    """Return what training added to the scores, (columns,) float32: to be subtracted; 0 where nothing was."""
    columns = 1 if n_classes == 2 else n_classes
    if imbalance not in ("balanced", "oversample"):
        return np.zeros(columns, np.float32)
    logs = np.log(_class_weights(y, weight, n_classes))
    return np.asarray(logs[1:] - logs[:1] if columns == 1 else logs, np.float32)


def focal_to_natural(scores: npt.NDArray[np.floating]) -> Floats:
    """Return scores of the probabilities behind those that the focal loss learned.

    Parameters
    ----------
    scores
        (n, columns) logits: one column of two classes, or one for each.

    Returns
    -------
    ndarray
        (n, columns) float64; a row depends on nothing but itself.

    Examples
    --------
    Without doubt about half there is none to correct; what is learned as 0.8 stands for more.

    >>> focal_to_natural(np.array([[0.0], [np.log(4)]])).round(3).tolist()
    [[0.0], [3.725]]
    """
    logs = log_probabilities(np.asarray(scores, np.float64))
    said = np.exp(logs)
    rest = np.maximum(-np.expm1(logs), _LEAST)
    natural = logs - np.log(rest * (rest - FOCUS * said * logs))
    return np.asarray(natural[:, 1:] - natural[:, :1] if scores.shape[1] == 1 else natural, np.float64)


def natural_to_focal(scores: npt.NDArray[np.floating]) -> Floats:
    """Return the scores that the focal loss learns of probabilities: the inverse of `focal_to_natural`.

    Examples
    --------
    >>> natural_to_focal(np.array([[3.725]])).round(2).tolist()
    [[1.39]]
    """
    wanted = np.asarray(scores, np.float64)
    if wanted.shape[1] > 1:
        wanted = log_probabilities(wanted)
    found = wanted / 2
    for _ in range(_STEPS):
        reached = focal_to_natural(found)
        error = wanted - (log_probabilities(reached) if wanted.shape[1] > 1 else reached)
        # Slopes lie between 1 and 3, so that this step always comes nearer.
        found = found + error / 3
    return np.asarray(found, np.float64)


def _class_weights(
    y: npt.NDArray[np.int64], weight: npt.NDArray[np.float32], n_classes: int
) -> npt.NDArray[np.float64]:
    """Return (n_classes,) weights by which every class has the same total; of one that no case has, 1."""
    counts = np.bincount(y, weight, minlength=n_classes)
    return np.where(counts > 0, counts.sum() / (n_classes * np.where(counts > 0, counts, 1)), 1.0)
