"""All metrics of a set of probabilities with their intervals, for one target or the mean over several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.intervals.calibration_error import Bins, bin_probabilities, estimate_error, join_bins
from heads.scores import Floats
from heads.statistics.bootstrap import LEVEL, Draws, Estimate, estimate
from heads.statistics.metric_functions import ece_deviations
from heads.statistics.metrics import METRICS, Metric, StandsOn, ece_bins, metric


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
    """One metric: on all units, in each draw, and of how many units.

    Parameters
    ----------
    value
        On all units.
    drawn
        (draws,) in each draw.
    n
        Number of units.
    stands_on
        Patients that a rate of 0 or 1 stands on (`Metric.stands_on`); 0 where there is none.
    fall
        As `heads.statistics.bootstrap.estimate`.
    binned
        The bins of a calibration error; None for other metrics.
    """

    value: float
    drawn: Floats
    n: int
    stands_on: int = 0
    fall: float = 1.0
    binned: BinnedError | None = None

    def estimate(self) -> Estimate:
        """Return the value with its interval."""
        if self.binned is None or not np.isfinite(self.value):
            return estimate(self.value, self.drawn, n=self.n, patients=self.stands_on, fall=self.fall)
        found = estimate_error(
            self.binned.bins, self.binned.drawn, patients=self.binned.patients, level=LEVEL
        )
        undefined = int((~np.isfinite(self.drawn)).sum())
        if not found.low < found.high:
            return Estimate(self.value, np.nan, np.nan, self.n, undefined)
        return Estimate(
            self.value,
            found.low,
            found.high,
            self.n,
            undefined,
            debiased=found.debiased,
            if_perfect=found.if_perfect,
        )


@dataclass(frozen=True)
class BinnedError:
    """The bins behind a calibration error, what each of them adds to it in each draw, (draws, m), and the patients."""

    bins: Bins
    drawn: Floats
    patients: int


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
    n_targets = scored.y.shape[1]
    cuts = [0.5] * n_targets if thresholds is None else thresholds
    return mean_of_targets([draw_target(scored, target, names, cuts[target]) for target in range(n_targets)])


def draw_target(
    scored: Scored, target: int, names: Sequence[str] | None = None, threshold: float = 0.5
) -> dict[str, Drawn]:
    """Compute a target's metrics as `draw_metrics`; without a label it has none."""
    rows = [metric(name) for name in (METRICS if names is None else names)]
    rows = [
        row
        for row in rows
        if (scored.class_weights is not None or not row.needs_class_weights)
        and (scored.ordered or not row.needs_order)
    ]
    known = (scored.y[:, target] != MISSING).any()
    return _of_target(scored, target, rows, threshold) if known else {}


def mean_of_targets(by_target: Sequence[dict[str, Drawn]]) -> dict[str, Drawn]:
    """Return the unweighted mean of every metric over the targets that have any."""
    known = [of_target for of_target in by_target if of_target]
    if len(known) == 1:
        return known[0]
    return {name: _mean([of_target[name] for of_target in known]) for name in (known[0] if known else ())}


def estimates(drawn: Mapping[str, Drawn]) -> dict[str, Estimate]:
    """Return metrics with their 95 % intervals."""
    return {name: entry.estimate() for name, entry in drawn.items()}


def evaluate(
    scored: Scored, names: Sequence[str] | None = None, *, thresholds: Sequence[float] | None = None
) -> dict[str, Estimate]:
    """Return `draw_metrics` with 95 % intervals."""
    return estimates(draw_metrics(scored, names, thresholds=thresholds))


def _mean(targets: Sequence[Drawn]) -> Drawn:
    """Return the unweighted mean of a metric over targets."""
    parts = [entry.binned for entry in targets if entry.binned is not None]
    binned = None
    if len(parts) == len(targets):
        binned = BinnedError(
            join_bins([part.bins for part in parts]),
            np.hstack([part.drawn for part in parts]) / len(parts),
            max(part.patients for part in parts),
        )
    return Drawn(
        float(np.mean([entry.value for entry in targets])),
        np.asarray(np.mean([entry.drawn for entry in targets], axis=0), np.float64),
        sum(entry.n for entry in targets),
        min(entry.stands_on for entry in targets),
        max(entry.fall for entry in targets),
        binned,
    )


def _of_target(scored: Scored, target: int, rows: Sequence[Metric], threshold: float) -> dict[str, Drawn]:
    units = np.flatnonzero(scored.y[:, target] != MISSING)
    y, probabilities = scored.y[units, target], scored.probabilities[units, target]
    weights, patients = scored.draws.weights(units), scored.draws.patient_of_unit[units]
    decisions = decide(probabilities, threshold)
    found = {}
    for row in rows:
        if len(y) < row.least_units:
            found[row.name] = Drawn(np.nan, np.full(len(weights), np.nan), len(y))
        elif row.binned:
            found[row.name] = _binned(y, probabilities, weights, patients)
        else:
            of_all, of_draws = None, weights
            if row.needs_class_weights:
                of_cases = np.asarray(scored.class_weights, np.float32)[y]
                of_all, of_draws = of_cases[None], weights * of_cases
            value = float(row.values(y, probabilities, decisions, of_all)[0])
            drawn = row.values(y, probabilities, decisions, of_draws)
            at_end = (0, 1.0)
            if value in (0, 1):
                at_end = _at_the_end(row, y, decisions, probabilities.shape[1], patients)
            found[row.name] = Drawn(value, drawn, len(y), *at_end)
    return found


def _binned(
    y: npt.NDArray[np.int64],
    probabilities: Floats,
    weights: npt.NDArray[np.float32],
    patients: npt.NDArray[np.int64],
) -> Drawn:
    """Return the calibration error with what its interval needs."""
    bins = ece_bins(len(y))
    of_all = bin_probabilities(y, probabilities, bins=bins)
    drawn = ece_deviations(y, probabilities, weights, bins=bins)
    return Drawn(
        float(np.abs(of_all.deviations).sum()),
        np.abs(drawn).sum(axis=1),
        len(y),
        binned=BinnedError(of_all, drawn, len(np.unique(patients))),
    )


def _at_the_end(
    row: Metric,
    y: npt.NDArray[np.int64],
    decisions: npt.NDArray[np.int64],
    n_classes: int,
    patients: npt.NDArray[np.int64],
) -> tuple[int, float]:
    """Return how many patients a metric of 0 or 1 stands on, of several classes those of the rarest, and its fall."""
    if row.stands_on == "kappa":
        # 1 - kappa is the share of wrong decisions over that of chance, which follows from the classes' shares.
        by_chance = 1 - float(((np.bincount(y) / len(y)) ** 2).sum())
        right = bool((decisions == y).all())
        return (len(np.unique(patients)), 1 / by_chance) if right and by_chance > 0 else (0, 1.0)
    classes = [1] if n_classes == 2 else range(n_classes)
    among: dict[StandsOn, list[npt.NDArray[np.bool_]]] = {
        "nobody": [],
        "all": [np.ones(len(y), np.bool_)],
        "every class": [y == k for k in range(n_classes)],
        "class": [y == k for k in classes],
        "others": [y != k for k in classes],
        "decided": [decisions == k for k in classes],
    }
    return min((len(np.unique(patients[units])) for units in among[row.stands_on]), default=0), 1.0
