"""The metrics, one row each: how it is computed, which way is better, what it needs, where it is shown.

Everything else derives from this table: what ``run.json`` holds, the terminal, the report, the comparison of runs and
the table in ``docs/protocols.md``. A new metric is one more row of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from embedstore.errors import UsageError, did_you_mean
from heads.scores import Floats
from heads.statistics import metric_functions as functions

Array = npt.NDArray[Any]
Better = Literal["larger", "smaller", "nearer 0", "nearer 1"]
# Computed there as well as overall: in the cells of a subgroup, at thresholds from out-of-fold probabilities, with
# p-values between runs, for each size of a learning curve, and for stating the prevalence of all.
Computed = Literal["subgroups", "thresholds", "comparison", "learning curve", "without image"]
# Shown where there is no room for all: `embed probe`, the columns of `embed probe --head all`, the tiles of the report,
# its columns of subgroups and targets, and its columns of thresholds.
Shown = Literal["summary", "heads", "tiles", "cells", "decisions"]
StandsOn = Literal["nobody", "all", "every class", "class", "others", "decided", "kappa"]

# An observed share of fewer units says nothing about a probability: with a unit in each bin the error is the
# mean of |y - p|, whatever the calibration.
UNITS_PER_ECE_BIN = 20
LEAST_ECE_UNITS = 2 * UNITS_PER_ECE_BIN


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Parameters
    ----------
    name
        Its key in ``run.json`` and on the terminal.
    label
        What people call it.
    function
        ``f(y, probabilities, weights)``, or of decisions ``f(y, decisions, n_classes=, weights=)``; returns (draws,).
    better
        Which values are better.
    of
        Whether it is computed from probabilities or from decisions.
    computed
        Where it is computed beside overall and by target.
    shown
        Where it is shown; what is computed is in the report's full table anyway.
    needs_order
        Not computed for a task whose classes are not ordered; of two classes it says what its plain form says.
    needs_class_weights
        Weighs each case by the weight that the task gives its class; not computed for a task without.
    least_units
        NaN for a target with fewer labelled units.
    stands_on
        Whose patients the interval of a rate (or AUROC) of 0 or 1 counts (`heads.intervals.rule_of_three`): of all,
        of the rarest of all classes, or, of the positive one of two and of several the rarest, its own, the others'
        or those decided for it; of a kappa those of all, whose share of right decisions it is made from. Nobody's for
        metrics that then have no interval.
    binned
        A sum over bins to which noise only ever adds: its interval is that of `heads.intervals.calibration_error`.
    chance
        What a head without knowledge reaches, if that depends on the data.
    """

    name: str
    label: str
    function: Callable[..., Floats]
    better: Better
    of: Literal["probabilities", "decisions"] = "probabilities"
    computed: frozenset[Computed] = frozenset()
    shown: frozenset[Shown] = frozenset()
    needs_order: bool = False
    needs_class_weights: bool = False
    least_units: int = 1
    stands_on: StandsOn = "nobody"
    binned: bool = False
    chance: Literal["", "prevalence"] = ""

    def values(self, y: Array, probabilities: Floats, decisions: Array, weights: Array | None) -> Floats:
        """Return the metric under each row of weights, (draws,), or once without: (1,).

        Parameters
        ----------
        y, decisions
            (n,) int: true and decided class.
        probabilities
            (n, n_classes).
        weights
            (draws, n) non-negative, or None for one draw of ones.
        """
        if self.of == "decisions":
            return self.function(y, decisions, n_classes=probabilities.shape[1], weights=weights)
        return self.function(y, probabilities, weights)

    def rank(self, value: float) -> float:
        """Return a number that is smaller for better values."""
        if self.better in ("larger", "smaller"):
            return -value if self.better == "larger" else value
        return abs(value - (1 if self.better == "nearer 1" else 0))

    def speaks(self, n_classes: int) -> bool:
        """Whether it says something of its own with so many classes."""
        return n_classes > 2 or not self.needs_order


def metric(name: str) -> Metric:
    """Return a metric by its name; raises UsageError for one that is not in the table."""
    if name not in METRICS:
        raise UsageError(
            f"metric must be one of {', '.join(METRICS)}; found {name!r}{did_you_mean(name, METRICS)}"
        )
    return METRICS[name]


def left_out_metrics(n_classes: int, *, ordered: bool) -> dict[str, str]:
    """Return the metrics that would say something of so many classes and are not computed, with the reason."""
    return {
        name: "the task does not say that its classes are grades, from the least to the gravest"
        for name, row in METRICS.items()
        if row.needs_order and not ordered and row.speaks(n_classes)
    }


def metric_label(name: str) -> str:
    """Return what people call a metric; one that this release does not know goes by its name."""
    return METRICS[name].label if name in METRICS else name


def computed_in(place: Computed) -> tuple[str, ...]:
    """Return the names of the metrics that are computed there, in the order of the table."""
    return tuple(name for name, row in METRICS.items() if place in row.computed)


def shown_in(place: Shown) -> tuple[str, ...]:
    """Return the names of the metrics that are shown there, in the order of the table."""
    return tuple(name for name, row in METRICS.items() if place in row.shown)


def leading(primary: str, among: Container[str]) -> str:
    """Return the metric that results lead with: a task's primary one where it is there, else AUROC."""
    return primary if primary in among else "auroc"


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in the order of the table; those that this release does not know come last."""
    places = {name: place for place, name in enumerate(METRICS)}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def ece_bins(n: int) -> int:
    """Return how many bins the ECE of `n` units has: one for every 20 units, 15 at most; 0 below 40 units."""
    return min(functions.ECE_BINS, n // UNITS_PER_ECE_BIN) if n >= LEAST_ECE_UNITS else 0


def _ece(y: Array, probabilities: Floats, weights: Array | None = None) -> Floats:
    return functions.ece(y, probabilities, weights, bins=ece_bins(len(y)))


_EVERYWHERE: frozenset[Computed] = frozenset({"subgroups", "comparison", "learning curve"})
_DECISIONS: frozenset[Computed] = frozenset({"subgroups", "thresholds"})

METRICS: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric(
            name="auroc",
            label="AUROC",
            function=functions.auroc,
            better="larger",
            computed=_EVERYWHERE,
            shown=frozenset({"summary", "heads", "tiles", "cells"}),
            stands_on="every class",
        ),
        Metric(
            name="auprc",
            label="AUPRC",
            function=functions.auprc,
            better="larger",
            computed=frozenset({"subgroups"}),
            shown=frozenset({"summary", "tiles"}),
            chance="prevalence",
        ),
        Metric(
            name="kappa",
            label="kappa",
            function=functions.kappa,
            better="larger",
            of="decisions",
            computed=_DECISIONS | {"comparison"},
            shown=frozenset({"summary", "heads", "tiles", "cells", "decisions"}),
            stands_on="kappa",
        ),
        Metric(
            name="quadratic_kappa",
            label="quadratic kappa",
            function=functions.quadratic_kappa,
            better="larger",
            of="decisions",
            computed=_DECISIONS,
            needs_order=True,
            shown=frozenset({"summary"}),
        ),
        Metric(
            name="accuracy",
            label="accuracy",
            function=functions.accuracy,
            better="larger",
            of="decisions",
            computed=_DECISIONS,
            shown=frozenset({"summary", "tiles", "cells", "decisions"}),
            stands_on="all",
        ),
        Metric(
            name="balanced_accuracy",
            label="balanced accuracy",
            function=functions.balanced_accuracy,
            better="larger",
            of="decisions",
            computed=_DECISIONS,
            stands_on="every class",
        ),
        Metric(
            name="recall",
            # By two names in the field; tables and axes use the same words.
            label="sensitivity (recall)",
            function=functions.recall,
            better="larger",
            of="decisions",
            computed=_DECISIONS,
            shown=frozenset({"tiles", "decisions"}),
            stands_on="class",
        ),
        Metric(
            name="specificity",
            label="specificity",
            function=functions.specificity,
            better="larger",
            of="decisions",
            computed=_DECISIONS,
            shown=frozenset({"tiles", "decisions"}),
            stands_on="others",
        ),
        Metric(
            name="precision",
            label="precision",
            function=functions.precision,
            better="larger",
            of="decisions",
            computed=_DECISIONS,
            shown=frozenset({"decisions"}),
            stands_on="decided",
        ),
        Metric(
            name="f1",
            label="F1",
            function=functions.f1,
            better="larger",
            of="decisions",
            computed=_DECISIONS,
            shown=frozenset({"decisions"}),
        ),
        Metric(
            name="log_loss",
            label="log loss",
            function=functions.log_loss,
            better="smaller",
            computed=_EVERYWHERE | {"without image"},
            shown=frozenset({"summary", "heads", "tiles", "cells"}),
        ),
        Metric(
            name="weighted_log_loss",
            label="weighted log loss",
            function=functions.log_loss,
            better="smaller",
            computed=frozenset({"subgroups", "without image"}),
            needs_class_weights=True,
        ),
        Metric(
            name="brier",
            label="Brier score",
            function=functions.brier,
            better="smaller",
            computed=_EVERYWHERE - {"learning curve"} | {"without image"},
            shown=frozenset({"summary", "tiles"}),
        ),
        Metric(
            name="brier_skill",
            label="Brier skill score",
            function=functions.brier_skill,
            better="larger",
            computed=frozenset({"subgroups"}),
        ),
        Metric(
            name="ece",
            label="ECE (classwise, of the positive class's probability)",
            function=_ece,
            better="smaller",
            computed=frozenset({"subgroups"}),
            shown=frozenset({"summary", "heads", "tiles", "cells"}),
            least_units=LEAST_ECE_UNITS,
            binned=True,
        ),
        # A slope in a subgroup of a few dozen cases is noise, and its refitting costs more than all the others.
        Metric(
            name="calibration_slope",
            label="calibration slope",
            function=functions.calibration_slope,
            better="nearer 1",
            shown=frozenset({"summary", "tiles"}),
        ),
        Metric(
            name="calibration_intercept",
            label="calibration intercept",
            function=functions.calibration_intercept,
            better="nearer 0",
        ),
    )
}
