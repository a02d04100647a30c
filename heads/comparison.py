"""Runs against each other, paired on the same units and the same draws of patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heads.bootstrap import DRAWS, Difference, holm, paired_difference
from heads.evaluation import Drawn, draw_metrics
from heads.judged import judged_units
from heads.run import Run

METRICS = ("auroc", "log_loss", "brier", "kappa")
_SMALLER_IS_BETTER = frozenset({"log_loss", "weighted_log_loss", "brier", "ece"})


@dataclass(frozen=True)
class Comparison:
    """One run against the best one, in one metric.

    Parameters
    ----------
    run, best
        Positions in the list of runs.
    metric
        Lower-case name.
    difference
        The run minus the best, with interval and p-value.
    corrected_p
        After Holm, over all comparisons of this metric.
    """

    run: int
    best: int
    metric: str
    difference: Difference
    corrected_p: float


def compare_runs(runs: Sequence[Run], *, draws: int = DRAWS, seed: int = 0) -> list[Comparison]:
    """Compare runs with the best of them in each of `METRICS`.

    Returns
    -------
    list of Comparison
        Empty when there are fewer than two runs, or when they were not judged by the same units with the
        same labels: then nothing is paired.
    """
    judged = [judged_units(run) for run in runs]
    if len(runs) < 2 or any(run.classes != runs[0].classes or run.targets != runs[0].targets for run in runs):
        return []
    first = judged[0]
    for other in judged[1:]:
        if not np.array_equal(first.unit_ids, other.unit_ids) or not np.array_equal(first.y, other.y):
            return []
    drawn = [draw_metrics(entry.scored(draws=draws, seed=seed), METRICS) for entry in judged]
    return [comparison for metric in METRICS for comparison in _compare(drawn, metric)]


def _compare(drawn: list[dict[str, Drawn]], metric: str) -> list[Comparison]:
    values = [of_run[metric].value for of_run in drawn]
    if not np.isfinite(values).all():
        return []
    best = int(np.argmin(values) if metric in _SMALLER_IS_BETTER else np.argmax(values))
    others = [index for index in range(len(drawn)) if index != best]
    differences = [
        paired_difference(
            (values[index], values[best]),
            (drawn[index][metric].drawn, drawn[best][metric].drawn),
            n=drawn[index][metric].n,
        )
        for index in others
    ]
    corrected = holm([difference.p_value for difference in differences])
    return [
        Comparison(index, best, metric, difference, p)
        for index, difference, p in zip(others, differences, corrected, strict=True)
    ]
