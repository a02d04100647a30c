"""The functions behind the metrics: each for many weightings of the same cases at once.

A bootstrap draw is a row of weights (how often each case was drawn), so every metric takes ``weights`` of
shape (draws, n) and returns (draws,). A metric that a draw leaves undefined (one class only, no positive
decision, ...) is NaN there and never a made-up number; the caller counts them. Ranks and calibration are
summed in the weights' own precision: float32 holds whole counts exactly up to 2**24 cases.

With two classes the second is the positive one and metrics of one class speak of it; with more classes they
are the unweighted mean over classes (one versus the rest), unless the docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError
from heads.intervals.calibration_error import equal_mass_bins
from heads.intervals.drawn_regression import DrawnRegression
from heads.statistics.bootstrap import blocks, ratio, weighted_mean, weighted_sums

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

ECE_BINS = 15  # Guo et al. 2017 (arXiv 1706.04599), here with equal mass in place of equal width
PROBABILITY_FLOOR = 1e-15  # as in the customary log loss: log(0) is no number
# Logits that differ by less are one score and rounding.
_SAME_LOGIT = 1e-9
_FEW = 32


def confusion(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return the weighted confusion matrices.

    Parameters
    ----------
    y
        (n,) int, true class from 0 to ``n_classes - 1``.
    decisions
        (n,) int, decided class.
    n_classes
        Number of classes.
    weights
        (draws, n) non-negative, or None for one draw of ones.

    Returns
    -------
    ndarray
        (draws, n_classes, n_classes) float64: true class by decided class.

    Raises
    ------
    UsageError
        If lengths differ or a class is out of range.
    """
    y, decisions = _classes(y, n_classes), _classes(decisions, n_classes)
    cells = np.zeros((len(y), n_classes * n_classes), np.float32)
    cells[np.arange(len(y)), y * n_classes + decisions] = 1
    return weighted_sums(cells, weights).reshape(-1, n_classes, n_classes)


def accuracy(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return the share of right decisions; arguments as `confusion`, result (draws,)."""
    matrix = confusion(y, decisions, n_classes=n_classes, weights=weights)
    return ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum((1, 2)))


def balanced_accuracy(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return the mean recall over all classes; NaN where a class was not drawn. Arguments as `confusion`."""
    matrix = confusion(y, decisions, n_classes=n_classes, weights=weights)
    return np.asarray(_recalls(matrix).mean(1), np.float64)


def precision(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return the share of true ones among the decided ones (positive predictive value); as `confusion`."""
    matrix = confusion(y, decisions, n_classes=n_classes, weights=weights)
    return _of_interest(ratio(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(1)))


def recall(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return the share of the true ones that was found (sensitivity); arguments as `confusion`."""
    return _of_interest(_recalls(confusion(y, decisions, n_classes=n_classes, weights=weights)))


def specificity(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return the share of the others that was left out; arguments as `confusion`."""
    matrix = confusion(y, decisions, n_classes=n_classes, weights=weights)
    total = matrix.sum((1, 2))[:, None]
    negatives = total - matrix.sum(2)
    false_positives = matrix.sum(1) - np.diagonal(matrix, axis1=1, axis2=2)
    return _of_interest(ratio(negatives - false_positives, negatives))


def f1(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return the harmonic mean of precision and recall; arguments as `confusion`."""
    matrix = confusion(y, decisions, n_classes=n_classes, weights=weights)
    right = np.diagonal(matrix, axis1=1, axis2=2)
    return _of_interest(ratio(2 * right, matrix.sum(1) + matrix.sum(2)))


def kappa(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return Cohen's kappa; arguments as `confusion`."""
    return kappa_of_matrices(
        confusion(y, decisions, n_classes=n_classes, weights=weights), 1.0 - np.eye(n_classes)
    )


def quadratic_kappa(y: Array, decisions: Array, *, n_classes: int, weights: Array | None = None) -> Floats:
    """Return Cohen's kappa with squared distance between ordered classes; arguments as `confusion`."""
    distance = np.subtract.outer(np.arange(n_classes), np.arange(n_classes)).astype(np.float64) ** 2
    return kappa_of_matrices(confusion(y, decisions, n_classes=n_classes, weights=weights), distance)


def kappa_of_matrices(matrix: Floats, disagreement: Array) -> Floats:
    """Return the kappa of each of (draws, k, k) confusion matrices; `disagreement` (k, k) is 0 on its diagonal."""
    total = matrix.sum((1, 2))
    expected = matrix.sum(2)[:, :, None] * matrix.sum(1)[:, None, :]
    by_chance = ratio((expected * disagreement).sum((1, 2)), total)
    return 1 - ratio((matrix * disagreement).sum((1, 2)), by_chance)


def auroc(y: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Return the area under the ROC curve; ties count one half.

    Parameters
    ----------
    y
        (n,) int, true class.
    probabilities
        (n, n_classes) float; for two classes any increasing score does, as (n, 2).
    weights
        (draws, n) non-negative, or None for one draw of ones.

    Returns
    -------
    ndarray
        (draws,) float64; NaN where a class was not drawn.
    """
    return _one_versus_rest(_binary_auroc, y, probabilities, weights)


def auprc(y: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Return average precision: precision at each threshold, by the recall it adds; as `auroc`."""
    return _one_versus_rest(_binary_auprc, y, probabilities, weights)


def log_loss(y: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Return the mean negative log probability of the true class, in nats; arguments as `auroc`."""
    y = _classes(y, probabilities.shape[1])
    true_class = np.asarray(probabilities, np.float64)[np.arange(len(y)), y]
    return weighted_mean(-np.log(np.maximum(true_class, PROBABILITY_FLOOR)), weights)


def brier(y: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Return the mean squared error of the probabilities; arguments as `auroc`.

    With two classes of the positive one (0 to 1), with more the sum over classes (0 to 2; Brier 1950).
    """
    return weighted_mean(_squared_errors(y, probabilities), weights)


def brier_skill(y: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Return one minus the Brier score over that of each draw's own prevalence; as `auroc`."""
    n_classes = probabilities.shape[1]
    y = _classes(y, n_classes)
    one_hot = np.eye(n_classes)[y]
    sums = weighted_sums(np.column_stack([_squared_errors(y, probabilities), one_hot]), weights)
    total = sums[:, 1:].sum(1)
    prevalence = ratio(sums[:, 1:], total[:, None])
    # Mean squared error of stating the prevalence: p (1 - p) a class; the binary score has one of the two.
    reference = (prevalence * (1 - prevalence)).sum(1) / (2 if n_classes == 2 else 1)
    skill: Floats = 1 - ratio(ratio(sums[:, 0], total), reference)
    return skill


def ece(y: Array, probabilities: Array, weights: Array | None = None, *, bins: int = ECE_BINS) -> Floats:
    """Return the expected calibration error over bins of equal mass.

    The bins are cut once, on the cases without weights, so that every draw has the same bins; equal
    probabilities are never parted. With more than two classes the mean over classes (classwise).

    Parameters
    ----------
    y, probabilities, weights
        As `auroc`.
    bins
        Number of bins; fewer where ties or too few cases leave some empty.
    """
    deviations = ece_deviations(y, probabilities, weights, bins=bins)
    return np.asarray(np.abs(deviations).sum(axis=1), np.float64)


def ece_deviations(
    y: Array, probabilities: Array, weights: Array | None = None, *, bins: int = ECE_BINS
) -> Floats:
    """Return what each bin adds to `ece`, with its sign: (draws, m), as many for each class as there are bins."""
    y, probabilities = _classes(y, probabilities.shape[1]), np.asarray(probabilities, np.float64)
    positives = _positives(probabilities)
    return np.hstack(
        [_binary_deviations(y == k, probabilities[:, k], weights, bins) for k in positives]
    ) / len(positives)


def calibration_slope(y: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Return the slope of the labels' logistic regression on the logit; 1 is right, below over-confident.

    NaN where all drawn cases have the same probability: a line has no slope through one point. NaN too where the
    probabilities part the classes: the likelihood then grows with the slope for ever (Albert & Anderson 1984).
    """
    return _one_versus_rest(_binary_slope, y, probabilities, weights)


def calibration_intercept(y: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Return the intercept of that regression with slope 1 (calibration in the large); 0 is right.

    Above 0 the probabilities are too low. Van Calster et al. 2019 (doi 10.1186/s12916-019-1466-7).
    """
    return _one_versus_rest(_binary_intercept, y, probabilities, weights)


def _classes(y: Array, n_classes: int) -> npt.NDArray[np.int64]:
    y = np.asarray(y, np.int64)
    if y.ndim != 1 or (len(y) and (y.min() < 0 or y.max() >= n_classes)):
        found = f"shape {y.shape}" if y.ndim != 1 else f"values from {y.min()} to {y.max()}"
        raise UsageError(f"classes must be one number per case from 0 to {n_classes - 1}; found {found}")
    return y


def _recalls(matrix: Floats) -> Floats:
    return ratio(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(2))


def _of_interest(per_class: Floats) -> Floats:
    """Return the positive class's column of two, else the mean over classes."""
    return per_class[:, 1] if per_class.shape[1] == 2 else per_class.mean(1)


def _squared_errors(y: Array, probabilities: Array) -> Floats:
    n_classes = probabilities.shape[1]
    errors = (np.asarray(probabilities, np.float64) - np.eye(n_classes)[_classes(y, n_classes)]) ** 2
    return np.asarray(errors[:, 1] if n_classes == 2 else errors.sum(1), np.float64)


def _positives(probabilities: Array) -> list[int]:
    n_classes = probabilities.shape[1]
    return [1] if n_classes == 2 else list(range(n_classes))


def _one_versus_rest(
    metric: Callable[[Flags, Floats, Array], Floats],
    y: Array,
    probabilities: Array,
    weights: Array | None,
) -> Floats:
    y, probabilities = _classes(y, probabilities.shape[1]), np.asarray(probabilities, np.float64)
    weights = np.ones((1, len(y))) if weights is None else weights
    if weights.ndim != 2 or weights.shape[1] != len(y):
        raise UsageError(f"weights must have shape (draws, {len(y)}); found {weights.shape}")
    per_class = [metric(y == k, probabilities[:, k], weights) for k in _positives(probabilities)]
    return np.asarray(np.mean(per_class, axis=0), np.float64)


def _binary_auroc(positive: Flags, score: Floats, weights: Array) -> Floats:
    order = np.argsort(score, kind="stable")
    ranked, ties_end, ties_start = _ranked(score, order, positive)
    # `np.take` along rows is five times faster than indexing with an array.
    of_positives, of_negatives = order[ranked], ~ranked
    areas = []
    for block in blocks(weights):
        below = np.zeros((len(block), len(order) + 1), block.dtype)
        np.cumsum(np.take(block, order, axis=1) * of_negatives, axis=1, out=below[:, 1:])
        # A positive beats the negatives below its ties and half of those among them.
        beaten = np.take(below, ties_start, axis=1) + np.take(below, ties_end, axis=1)
        drawn = np.take(block, of_positives, axis=1)
        won = np.einsum("ij,ij->i", drawn, beaten, dtype=np.float64) / 2
        areas.append(ratio(won, drawn.sum(1, dtype=np.float64) * below[:, -1]))
    return np.concatenate(areas)


def _ranked(score: Floats, order: Array, positive: Flags) -> tuple[Flags, Array, Array]:
    """Return the labels in `order`, and for each positive where its ties end and start."""
    ranked, ordered = positive[order], score[order]
    of_positives = ordered[ranked]
    return (
        ranked,
        np.searchsorted(ordered, of_positives, "right"),
        np.searchsorted(ordered, of_positives, "left"),
    )


def _binary_auprc(positive: Flags, score: Floats, weights: Array) -> Floats:
    order = np.argsort(-score, kind="stable")
    ranked, ties_end, _ = _ranked(-score, order, positive)
    found_at, of_positives = np.cumsum(ranked)[ties_end - 1] - 1, order[ranked]
    areas = []
    for block in blocks(weights):
        decided = np.take(np.cumsum(np.take(block, order, axis=1), axis=1), ties_end - 1, axis=1)
        drawn = np.take(block, of_positives, axis=1)
        found = np.take(np.cumsum(drawn, axis=1), found_at, axis=1)
        # Where nothing was decided yet, nothing was drawn either, and the term carries no weight.
        np.divide(found, decided, out=found, where=decided > 0)
        areas.append(
            ratio(np.einsum("ij,ij->i", drawn, found, dtype=np.float64), drawn.sum(1, dtype=np.float64))
        )
    return np.concatenate(areas)


def _binary_deviations(positive: Flags, probability: Floats, weights: Array | None, bins: int) -> Floats:
    columns = np.zeros((len(positive), bins + 1))
    columns[np.arange(len(positive)), equal_mass_bins(probability, bins)] = probability - positive
    columns[:, bins] = 1
    sums = weighted_sums(columns, weights)
    return ratio(sums[:, :bins], sums[:, bins:])


def _logit(probability: Floats) -> Floats:
    clipped = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _binary_slope(positive: Flags, probability: Floats, weights: Array) -> Floats:
    logit = _logit(probability)
    design = np.column_stack([np.ones(len(positive)), logit])
    slopes = _newton(design, positive, np.zeros(len(positive)), weights, start=np.array([[0.0, 1.0]]))[:, 1]
    return np.where(_classes_overlap(positive, logit, weights), slopes, np.nan)


def _classes_overlap(positive: Flags, logit: Floats, weights: Array) -> Flags:
    """Return whether each class of a draw has a case beyond the other class's last one, (draws,)."""
    order = np.argsort(logit, kind="stable")
    lowest_positive, lowest_negative = (
        _first_drawn(order[positive[order] == of_class], logit, weights) for of_class in (True, False)
    )
    highest_positive, highest_negative = (
        _first_drawn(order[::-1][positive[order[::-1]] == of_class], logit, weights)
        for of_class in (True, False)
    )
    return np.asarray(
        (highest_negative - lowest_positive > _SAME_LOGIT)
        & (highest_positive - lowest_negative > _SAME_LOGIT)
    )


def _first_drawn(order: Array, logit: Floats, weights: Array) -> Floats:
    """Return the logit of the first case in an order that each draw has, (draws,); NaN where it has none of them."""
    found = np.full(len(weights), np.nan)
    if not len(order):  # no case at all has the class
        return found
    # A case is drawn two times in three: of the first few one nearly always is.
    few = np.take(weights, order[:_FEW], axis=1) > 0
    there = few.any(1)
    found[there] = logit[order[few.argmax(1)[there]]]
    for draw in np.flatnonzero(~there) if len(order) > _FEW else ():
        drawn = weights[draw, order] > 0
        if drawn.any():
            found[draw] = logit[order[drawn.argmax()]]
    return found


def _binary_intercept(positive: Flags, probability: Floats, weights: Array) -> Floats:
    return _newton(
        np.ones((len(positive), 1)), positive, _logit(probability), weights, start=np.zeros((1, 1))
    )[:, 0]


def _newton(design: Floats, positive: Flags, offset: Floats, weights: Array, *, start: Floats) -> Floats:
    """Solve the small logistic regression of every draw; (draws, m), NaN where there is no solution."""
    case = DrawnRegression(design, positive, offset)
    whole = case.solve(np.ones((1, len(positive))), start)
    # A draw's solution lies near that of all cases, and the first step from there costs a draw no exponential.
    first = np.where(np.isfinite(whole).all(), whole, start)
    return np.concatenate([case.solve(block, first) for block in blocks(weights)])
