"""Everything that is measured on the evaluation set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING, View
from heads.protocol.fitting import Fitted
from heads.protocol.predictions import Predictions
from heads.protocol.probe_result import Evaluation
from heads.stages import counted, stage
from heads.statistics.abstention import Answered, abstention_curve
from heads.statistics.bootstrap import Draws, Estimate
from heads.statistics.conformal import evaluate_sets
from heads.statistics.decision_curve import DecisionCurve, decision_curve
from heads.statistics.evaluation import Scored, evaluate
from heads.statistics.metrics import computed_in
from heads.statistics.prevalence import shares_outside
from heads.statistics.subgroups import subgroups_of


def evaluate_units(
    view: View,
    evaluated: Predictions,
    units: npt.NDArray[np.bool_],
    fitted: Fitted,
    learned: npt.NDArray[np.int64],
    *,
    draws: int,
    seed: int,
) -> Evaluation:
    """Compute all metrics, curves and counts of the evaluation set, on the same draws of patients.

    Parameters
    ----------
    view
        The units with their task and subgroups.
    evaluated
        What was predicted.
    units
        (n_units,) bool: which units of the view these are.
    fitted
        For its thresholds and folds.
    learned
        (n, targets) int64: the labels that were learned from.
    draws, seed
        Of the bootstrap.
    """
    with stage(f"intervals, {draws:,} draws of patients"):
        return _evaluate(view, evaluated, units, fitted, learned, draws=draws, seed=seed)


def _evaluate(
    view: View,
    evaluated: Predictions,
    units: npt.NDArray[np.bool_],
    fitted: Fitted,
    learned: npt.NDArray[np.int64],
    *,
    draws: int,
    seed: int,
) -> Evaluation:
    task, targets = view.task, view.task.targets
    scored = evaluated.scored(draws=draws, seed=seed, class_weights=task.class_weights, ordered=task.ordered)
    uncalibrated = replace(scored, probabilities=evaluated.uncalibrated)
    overall = evaluate(scored)
    by_target = (
        {targets[0]: overall}
        if len(targets) == 1
        else {
            targets[index]: evaluate(scored.take_target(index))
            for index in counted("target", range(len(targets)))
        }
    )
    by_subgroup: dict[str, dict[str, Mapping[str, Estimate]]] = {}
    cells = list(subgroups_of(task.subgroups, view.subgroups, units))
    for column, cell, members in counted("subgroup", cells):
        found = evaluate(scored.take(members), computed_in("subgroups"))
        by_subgroup.setdefault(column, {})[cell] = found
    at_threshold = {
        rule: evaluate(
            scored,
            computed_in("thresholds"),
            thresholds=[of_target[rule] for of_target in fitted.thresholds],
        )
        for rule in (fitted.thresholds[0] if fitted.thresholds else ())
    }
    sets = {
        target: evaluate_sets(
            evaluated.members[:, index], evaluated.y[:, index], scored.draws, classes=task.classes
        )
        for index, target in enumerate(targets)
    }
    constant = replace(
        scored, probabilities=shares_outside(evaluated.fold, learned, fitted.folds, len(task.classes))
    )
    curves, answered = _curves(scored, targets, task.positive_class)
    return Evaluation(
        overall=overall,
        without_image=evaluate(constant, computed_in("without image")),
        before_calibration=evaluate(uncalibrated, computed_in("uncalibrated")),
        by_target=by_target,
        by_subgroup=by_subgroup,
        at_threshold=at_threshold,
        sets=sets,
        decision_curves=curves,
        abstention=answered,
    )


def _curves(
    scored: Scored, targets: tuple[str, ...], positive: int | None
) -> tuple[dict[str, DecisionCurve], dict[str, tuple[Answered, ...]]]:
    """Return the curves of the targets that have a label here; of acting only where there is a class to act on."""
    curves, answered = {}, {}
    for index, target in enumerate(targets):
        units = np.flatnonzero(scored.y[:, index] != MISSING)
        if not len(units):
            continue
        y, probabilities = scored.y[units, index], scored.probabilities[units, index]
        draws = Draws(scored.draws.counts, scored.draws.patient_of_unit[units])
        if positive is not None:
            curves[target] = decision_curve(y == positive, probabilities[:, positive], draws)
        answered[target] = abstention_curve(y, probabilities, draws)
    return curves, answered
