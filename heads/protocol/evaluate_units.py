"""Everything that is measured on the units that a head is judged by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING, View
from heads.protocol.fitting import Fitted
from heads.protocol.probe_result import Evaluation, Predictions
from heads.statistics.abstention import Answered, abstention_curve
from heads.statistics.bootstrap import Draws, draw_patients
from heads.statistics.conformal import judge_sets
from heads.statistics.decision_curve import DecisionCurve, decision_curve
from heads.statistics.evaluation import DECISION_METRICS, SUBGROUP_METRICS, Scored, evaluate, metrics_for

UNCALIBRATED_METRICS = (
    "log_loss",
    "brier",
    "ece",
    "calibration_slope",
    "calibration_intercept",
    "accuracy",
    "kappa",
)


def judge(
    view: View,
    judged: Predictions,
    units: npt.NDArray[np.bool_],
    fitted: Fitted,
    *,
    draws: int,
    seed: int,
) -> Evaluation:
    """Compute all metrics, curves and counts of the judged units, on the same draws of patients.

    Parameters
    ----------
    view
        The units with their task and subgroups.
    judged
        What was predicted.
    units
        (n_units,) bool: which units of the view these are.
    fitted
        For thresholds, and for the probabilities before calibration.
    draws, seed
        Of the bootstrap.
    """
    from_patients = draw_patients(judged.patients, draws=draws, seed=seed)
    scored = Scored(judged.y, judged.probabilities, from_patients, view.task.class_weights)
    uncalibrated = replace(scored, probabilities=fitted.uncalibrated(judged.scores))
    names = metrics_for(view.task)
    overall = evaluate(scored, names)
    targets = view.task.targets
    by_target = (
        {targets[0]: overall}
        if len(targets) == 1
        else {target: evaluate(scored.take_target(index), names) for index, target in enumerate(targets)}
    )
    by_subgroup, of_subgroups = {}, metrics_for(view.task, SUBGROUP_METRICS)
    for name in view.task.subgroups:
        if name not in view.subgroups:
            continue
        cells = view.subgroups[name][units]
        by_subgroup[name] = {
            str(cell) or "unknown": evaluate(scored.take(np.flatnonzero(cells == cell)), of_subgroups)
            for cell in np.unique(cells)
        }
    decisions = metrics_for(view.task, tuple(DECISION_METRICS))
    at_threshold = {
        rule: evaluate(scored, decisions, thresholds=[of_target[rule] for of_target in fitted.thresholds])
        for rule in (fitted.thresholds[0] if fitted.thresholds else ())
    }
    classes = view.task.classes
    sets = {
        target: judge_sets(judged.members[:, index], judged.y[:, index], from_patients, classes=classes)
        for index, target in enumerate(targets)
    }
    curves, answered = _curves(scored, targets, view.task.positive_class)
    return Evaluation(
        overall=overall,
        before_calibration=evaluate(uncalibrated, UNCALIBRATED_METRICS),
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
