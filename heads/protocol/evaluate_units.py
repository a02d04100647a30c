"""Everything that is measured on the evaluation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedstore.task import Task
from embedstore.view import MISSING, View
from heads.inputs.shared_heads import Groups, target_groups
from heads.protocol.fitting import Fitted
from heads.protocol.predictions import Predictions
from heads.protocol.probe_result import Evaluation
from heads.stages import counted, stage
from heads.statistics.abstention import Answered, abstention_curve
from heads.statistics.bootstrap import Draws, Estimate
from heads.statistics.conformal import evaluate_sets
from heads.statistics.decision_curve import DecisionCurve, decision_curve
from heads.statistics.evaluation import Scored, draw_target, estimates, evaluate, mean_of_targets
from heads.statistics.metrics import computed_in
from heads.statistics.prevalence import shares_outside
from heads.statistics.subgroups import subgroups_of
from heads.statistics.thresholds import AT_SENSITIVITY, at_least, grade_thresholds

_OF_GRADES = ("recall", "specificity", "precision")


def evaluate_units(
    view: View,
    evaluated: Predictions,
    units: npt.NDArray[np.bool_],
    fitted: Fitted,
    learned: npt.NDArray[np.int64],
    *,
    draws: int,
    seed: int,
    shared: Groups = (),
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
    shared
        Groups of targets that one head answers: they have their thresholds of grades in common.
    """
    with stage(f"intervals, {draws:,} draws of patients"):
        return _evaluate(view, evaluated, units, fitted, learned, draws=draws, seed=seed, shared=shared)


def _evaluate(
    view: View,
    evaluated: Predictions,
    units: npt.NDArray[np.bool_],
    fitted: Fitted,
    learned: npt.NDArray[np.int64],
    *,
    draws: int,
    seed: int,
    shared: Groups,
) -> Evaluation:
    task, targets = view.task, view.task.targets
    scored = evaluated.scored(draws=draws, seed=seed, class_weights=task.class_weights, ordered=task.ordered)
    uncalibrated = replace(scored, probabilities=evaluated.uncalibrated)
    # Drawn once: the metrics of all targets are the means of theirs.
    drawn = [draw_target(scored, target) for target in counted("target", range(len(targets)))]
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
    grades = _grade_thresholds(task, fitted, learned, shared)
    curves, answered = _curves(scored, targets, task.positive_class)
    return Evaluation(
        overall=estimates(mean_of_targets(drawn)),
        without_image=evaluate(constant, computed_in("without image")),
        before_calibration=evaluate(uncalibrated),
        by_target={name: estimates(of_target) for name, of_target in zip(targets, drawn, strict=True)},
        by_subgroup=by_subgroup,
        at_threshold=at_threshold,
        sets=sets,
        decision_curves=curves,
        abstention=answered,
        grade_thresholds=grades,
        at_grades=_at_grades(scored, task.classes, grades),
    )


def _grade_thresholds(
    task: Task, fitted: Fitted, learned: npt.NDArray[np.int64], shared: Groups
) -> tuple[Mapping[str, Mapping[str, float]], ...]:
    if not task.ordered or len(task.classes) == 2:
        return ()
    groups = target_groups(shared, task.targets) if shared else ()
    return grade_thresholds(learned, fitted.cut_probabilities, task.classes, groups)


def _at_grades(
    scored: Scored, classes: Sequence[str], grades: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[str, dict[str, Mapping[str, Estimate]]]:
    """Return what deciding a grade or a graver one at the wanted sensitivity is worth, of targets that have one."""
    found: dict[str, dict[str, Mapping[str, Estimate]]] = {}
    for number, grade in enumerate(classes[1:], start=1):
        having = [target for target, of_target in enumerate(grades) if grade in of_target]
        if not having:
            continue
        y, probability = scored.y[:, having], at_least(scored.probabilities[:, having], number)
        binary = Scored(
            np.where(y == MISSING, MISSING, (y >= number).astype(np.int64)),
            np.stack([1 - probability, probability], axis=2),
            scored.draws,
        )
        cuts = [grades[target][grade][AT_SENSITIVITY] for target in having]
        found[grade] = {AT_SENSITIVITY: evaluate(binary, _OF_GRADES, thresholds=cuts)}
    return found


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
