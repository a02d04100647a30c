"""All metrics of a set of probabilities with their intervals, for one target or the mean over several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.task import Task
from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics import metrics
from heads.statistics.bootstrap import Draws, Estimate, estimate

# Of the probabilities themselves: f(y, probabilities, weights).
PROBABILITY_METRICS: Mapping[str, Callable[..., Floats]] = {
    "auroc": metrics.auroc,
    "auprc": metrics.auprc,
    "log_loss": metrics.log_loss,
    "brier": metrics.brier,
    "brier_skill": metrics.brier_skill,
    "ece": metrics.ece,
    "calibration_slope": metrics.calibration_slope,
    "calibration_intercept": metrics.calibration_intercept,
}
# Of decisions: f(y, decisions, n_classes=, weights=).
DECISION_METRICS: Mapping[str, Callable[..., Floats]] = {
    "accuracy": metrics.accuracy,
    "balanced_accuracy": metrics.balanced_accuracy,
    "precision": metrics.precision,
    "recall": metrics.recall,
    "specificity": metrics.specificity,
    "f1": metrics.f1,
    "kappa": metrics.kappa,
    "quadratic_kappa": metrics.quadratic_kappa,
}
# An observed share of fewer units says nothing about a probability: with a unit in each bin the error is the
# mean of |y - p|, whatever the calibration.
UNITS_PER_ECE_BIN = 20
LEAST_ECE_UNITS = 2 * UNITS_PER_ECE_BIN
ALL_METRICS = (*PROBABILITY_METRICS, *DECISION_METRICS)
# Of these, the metrics that count the distance between classes, and so need classes that are in order.
ORDERED_METRICS = ("quadratic_kappa",)
# A slope in a subgroup of a few dozen cases is noise, and its refitting costs more than all the others.
SUBGROUP_METRICS = tuple(name for name in ALL_METRICS if not name.startswith("calibration_"))


@dataclass(frozen=True)
class Scored:
    """Probabilities beside the truth.

    Parameters
    ----------
    y
        (n_units, targets) int64, `MISSING` where there is no label.
    probabilities
        (n_units, targets, n_classes) float64.
    draws
        Bootstrap draws of the same units.
    class_weights
        (n_classes,) for ``weighted_log_loss``, or None.
    """

    y: npt.NDArray[np.int64]
    probabilities: Floats
    draws: Draws
    class_weights: tuple[float, ...] | None = None

    def take(self, units: npt.NDArray[Any]) -> Scored:
        """Return some units, on the same draws."""
        draws = Draws(self.draws.counts, self.draws.patient_of_unit[units])
        return Scored(self.y[units], self.probabilities[units], draws, self.class_weights)

    def take_target(self, target: int) -> Scored:
        """Return one target."""
        picked = slice(target, target + 1)
        return Scored(self.y[:, picked], self.probabilities[:, picked], self.draws, self.class_weights)


@dataclass(frozen=True)
class Drawn:
    """One metric: on all units, in each draw, and of how many units."""

    value: float
    drawn: Floats
    n: int

    def estimate(self) -> Estimate:
        """Return the value with its interval."""
        return estimate(self.value, self.drawn, n=self.n)


def metrics_for(task: Task, names: Sequence[str] = ALL_METRICS) -> tuple[str, ...]:
    """Return those metrics of `names` that the task's classes have a meaning for."""
    return tuple(name for name in names if task.ordered or name not in ORDERED_METRICS)


def ece_bins(n: int) -> int:
    """Return how many bins the ECE of `n` units has: one for every 20 units, 15 at most; 0 below 40 units."""
    return min(metrics.ECE_BINS, n // UNITS_PER_ECE_BIN) if n >= LEAST_ECE_UNITS else 0


def decide(probabilities: Floats, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Return the decided class of (n, n_classes) probabilities: at the threshold of two, else the likeliest."""
    if probabilities.shape[1] == 2:
        return np.asarray(probabilities[:, 1] >= threshold, np.int64)
    return np.asarray(probabilities.argmax(1), np.int64)


def draw_metrics(
    scored: Scored, names: Sequence[str] = ALL_METRICS, *, thresholds: Sequence[float] | None = None
) -> dict[str, Drawn]:
    """Compute metrics on all units and in every draw; of several targets the unweighted mean.

    Parameters
    ----------
    scored
        What to judge.
    names
        Metrics of `PROBABILITY_METRICS` and `DECISION_METRICS`.
    thresholds
        One per target; 0.5 by default.

    Returns
    -------
    dict
        Name -> metric; a target without a label among these units is left out of the mean. ``ece`` is NaN where a
        target has too few units for it (`ece_bins`).
    """
    n_targets = scored.y.shape[1]
    cuts = [0.5] * n_targets if thresholds is None else thresholds
    labelled = [target for target in range(n_targets) if (scored.y[:, target] != MISSING).any()]
    by_target = [_of_target(scored, target, names, cuts[target]) for target in labelled]
    if len(by_target) == 1:
        return by_target[0]
    combined = {}
    for name in by_target[0] if by_target else ():
        values = [of_target[name] for of_target in by_target]
        combined[name] = Drawn(
            float(np.mean([entry.value for entry in values])),
            np.asarray(np.mean([entry.drawn for entry in values], axis=0), np.float64),
            sum(entry.n for entry in values),
        )
    return combined


def evaluate(
    scored: Scored, names: Sequence[str] = ALL_METRICS, *, thresholds: Sequence[float] | None = None
) -> dict[str, Estimate]:
    """Return `draw_metrics` with 95 % intervals."""
    drawn = draw_metrics(scored, names, thresholds=thresholds)
    return {name: entry.estimate() for name, entry in drawn.items()}


def _of_target(scored: Scored, target: int, names: Sequence[str], threshold: float) -> dict[str, Drawn]:
    units = np.flatnonzero(scored.y[:, target] != MISSING)
    y, probabilities = scored.y[units, target], scored.probabilities[units, target]
    weights = scored.draws.weights(units)
    n_classes = probabilities.shape[1]
    decisions = decide(probabilities, threshold)
    found = {}
    for name in names:
        if name == "ece":
            value, drawn = _ece(y, probabilities, weights)
        elif name in PROBABILITY_METRICS:
            of_cases = PROBABILITY_METRICS[name]
            value, drawn = of_cases(y, probabilities)[0], of_cases(y, probabilities, weights)
        else:
            of_decisions = DECISION_METRICS[name]
            value = of_decisions(y, decisions, n_classes=n_classes)[0]
            drawn = of_decisions(y, decisions, n_classes=n_classes, weights=weights)
        found[name] = Drawn(float(value), drawn, len(y))
    if scored.class_weights is not None and "log_loss" in names:
        case_weights = np.asarray(scored.class_weights, np.float32)[y]
        value = metrics.log_loss(y, probabilities, case_weights[None])[0]
        drawn = metrics.log_loss(y, probabilities, weights * case_weights)
        found["weighted_log_loss"] = Drawn(float(value), drawn, len(y))
    return found


def _ece(y: npt.NDArray[np.int64], probabilities: Floats, weights: npt.NDArray[Any]) -> tuple[float, Floats]:
    bins = ece_bins(len(y))
    if not bins:
        return np.nan, np.full(len(weights), np.nan)
    value = metrics.ece(y, probabilities, bins=bins)[0]
    drawn = metrics.ece(y, probabilities, weights, bins=bins)
    # Noise in a bin only ever adds to this error, and a draw has that noise twice: without moving
    # the draws back by the excess, an interval would lie above the value it belongs to.
    return float(value), np.maximum(drawn - (np.nanmean(drawn) - value), 0)
