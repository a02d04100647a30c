"""All metrics of a set of probabilities with their intervals, for one target or the mean over several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.scores import Floats
from heads.statistics.bootstrap import Draws, Estimate, estimate
from heads.statistics.metrics import METRICS, Metric, metric


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
        (n_classes,) for metrics that need them (`Metric.needs_class_weights`), or None.
    ordered
        Whether classes are grades, for metrics that need it (`Metric.needs_order`).
    """

    y: npt.NDArray[np.int64]
    probabilities: Floats
    draws: Draws
    class_weights: tuple[float, ...] | None = None
    ordered: bool = False

    def take(self, units: npt.NDArray[Any]) -> Scored:
        """Return some units, on the same draws."""
        draws = Draws(self.draws.counts, self.draws.patient_of_unit[units])
        return replace(self, y=self.y[units], probabilities=self.probabilities[units], draws=draws)

    def take_target(self, target: int) -> Scored:
        """Return one target."""
        picked = slice(target, target + 1)
        return replace(self, y=self.y[:, picked], probabilities=self.probabilities[:, picked])


@dataclass(frozen=True)
class Drawn:
    """One metric: on all units, in each draw, and of how many units."""

    value: float
    drawn: Floats
    n: int

    def estimate(self) -> Estimate:
        """Return the value with its interval."""
        return estimate(self.value, self.drawn, n=self.n)


def decide(probabilities: Floats, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Return the decided class of (n, n_classes) probabilities: at the threshold of two, else the likeliest."""
    if probabilities.shape[1] == 2:
        return np.asarray(probabilities[:, 1] >= threshold, np.int64)
    return np.asarray(probabilities.argmax(1), np.int64)


def draw_metrics(
    scored: Scored, names: Sequence[str] | None = None, *, thresholds: Sequence[float] | None = None
) -> dict[str, Drawn]:
    """Compute metrics on all units and in every draw; of several targets the unweighted mean.

    Parameters
    ----------
    scored
        Probabilities and labels of the evaluated units.
    names
        Names of `heads.statistics.metrics.METRICS`; all by default. Those that need class weights or
        ordered classes are left out where there are none.
    thresholds
        One per target; 0.5 by default.

    Returns
    -------
    dict
        Name -> metric; a target without a label among these units is left out of the mean. A metric is NaN where a
        target has too few units for it (`Metric.least_units`).

    Raises
    ------
    UsageError
        If there is no metric of a name.
    """
    rows = [metric(name) for name in (METRICS if names is None else names)]
    rows = [
        row
        for row in rows
        if (scored.class_weights is not None or not row.needs_class_weights)
        and (scored.ordered or not row.needs_order)
    ]
    n_targets = scored.y.shape[1]
    cuts = [0.5] * n_targets if thresholds is None else thresholds
    labelled = [target for target in range(n_targets) if (scored.y[:, target] != MISSING).any()]
    by_target = [_of_target(scored, target, rows, cuts[target]) for target in labelled]
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
    scored: Scored, names: Sequence[str] | None = None, *, thresholds: Sequence[float] | None = None
) -> dict[str, Estimate]:
    """Return `draw_metrics` with 95 % intervals."""
    drawn = draw_metrics(scored, names, thresholds=thresholds)
    return {name: entry.estimate() for name, entry in drawn.items()}


def _of_target(scored: Scored, target: int, rows: Sequence[Metric], threshold: float) -> dict[str, Drawn]:
    units = np.flatnonzero(scored.y[:, target] != MISSING)
    y, probabilities = scored.y[units, target], scored.probabilities[units, target]
    weights = scored.draws.weights(units)
    decisions = decide(probabilities, threshold)
    found = {}
    for row in rows:
        if len(y) < row.least_units:
            found[row.name] = Drawn(np.nan, np.full(len(weights), np.nan), len(y))
            continue
        of_all, of_draws = None, weights
        if row.needs_class_weights:
            of_cases = np.asarray(scored.class_weights, np.float32)[y]
            of_all, of_draws = of_cases[None], weights * of_cases
        value = float(row.values(y, probabilities, decisions, of_all)[0])
        drawn = row.values(y, probabilities, decisions, of_draws)
        if row.upward_noise:
            # Without moving the draws back, an interval would lie above the value it belongs to.
            drawn = np.maximum(drawn - (np.nanmean(drawn) - value), 0)
        found[row.name] = Drawn(value, drawn, len(y))
    return found
