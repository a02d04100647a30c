"""The probe of a blend: weights, calibration and thresholds out of fold, judged as each of its parts is.

A unit's score is the weighted sum of the parts' calibrated log odds (`heads.blending.weights`). Every score that
calibration or judgement sees comes from weights of other patients: out of fold, those of the other folds; in an outer
cross-validation, those learned from what the parts said in the inner folds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING, View
from heads.blending.joining import Joined, Said, cut_log_odds, join
from heads.blending.parts import Part, part_of, require_one_question
from heads.blending.weights import SHRINKAGE
from heads.inputs.input_ways import HeadInputs
from heads.inputs.leakage import leakage_groups
from heads.protocol.decided_by import id_of
from heads.protocol.evaluate_units import evaluate_units
from heads.protocol.fitting import Fitted
from heads.protocol.learnable_targets import LeftOut, learnable_targets
from heads.protocol.options import ProbeOptions
from heads.protocol.predictions import Predictions
from heads.protocol.predictor import BlendedPredictor, calibrated
from heads.protocol.probe_result import ProbeResult, Settings
from heads.protocol.splits import Split, split_units
from heads.runs.run import Run
from heads.scores import Floats, blended, log_odds_of, probabilities_from_scores
from heads.stages import counted, stage
from heads.statistics.conformal import ConformalSets, conformal_sets
from heads.statistics.metric_functions import log_loss

BLEND = "blend"
Labels = npt.NDArray[np.int64]


def blend(view: View, parts: Sequence[ProbeResult | Run], options: ProbeOptions | None = None) -> ProbeResult:
    """Join several heads' answers to one question, and calibrate and evaluate what comes out.

    No head is fitted: the parts have said all that is needed. A blend of one head is that head, calibrated once more.

    Parameters
    ----------
    view
        That the parts were probed on.
    parts
        Results of `heads.probe` or saved runs, one for each head, made with the same options.
    options
        Those of the parts; `ProbeOptions` by default. Its head has no meaning.

    Raises
    ------
    UsageError
        If the parts do not belong together, or not to the view and the options.

    Examples
    --------
    >>> parts = [heads.probe(view, heads.ProbeOptions(head=name, draws=50)) for name in ("knn", "logistic")]
    >>> list(heads.blend(view, parts, heads.ProbeOptions(draws=50)).fitted.points[0])
    ['knn', 'logistic']
    """
    started = time.perf_counter()
    asked = replace(options or ProbeOptions(), head=BLEND, preset=None)
    plan = _plan(view, [part_of(part) for part in parts], asked)
    with stage("weights and calibration"):
        answer = join(plan.said, plan.n_classes)
        sets = _sets(plan, answer, plan.said)
    if plan.split.mode != "outer cross-validation":
        evaluated = _predicted(plan, answer, sets, slice(None))
    else:
        evaluated = _cross_validated(plan)
    fitted = _fitted(plan, answer)
    seconds = {"blend": time.perf_counter() - started}
    started = time.perf_counter()
    judged: dict[str, Any] = {"draws": asked.draws, "seed": asked.seed}
    evaluation = evaluate_units(plan.view, evaluated, plan.split.evaluated, fitted, plan.said.y, **judged)
    seconds["evaluate"] = time.perf_counter() - started
    return ProbeResult(
        view=plan.view,
        settings=_settings(plan, fitted.inputs),
        fitted=fitted,
        conformal=sets,
        outliers=plan.parts[0].outliers,
        out_of_fold=replace(
            plan.parts[0].out_of_fold, scores=answer.scores, probabilities=answer.calibrated.probabilities
        ),
        evaluated=evaluated,
        evaluation=evaluation,
        excluded={**plan.view.excluded, **plan.split.excluded},
        seconds=seconds,
        left_out=plan.left_out,
        decided_by=blend_decided_by([part.decided_by for part in plan.parts]),
        parts=[part.saved for part in plan.parts],
    )


def blend_decided_by(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what decides a blend: what decided each of its parts, and how hard equal weights pull."""
    first = parts[0]
    ways = [way for part in parts for way in part["inputs"]]
    return {
        **first,
        "inputs": [way for index, way in enumerate(ways) if way not in ways[:index]],
        "options": {**first["options"], "head": BLEND, "preset": None},
        "grid": {"class": "Blend", "shrinkage": SHRINKAGE, "parts": [id_of(part) for part in parts]},
        "versions": {name: found for part in parts for name, found in part["versions"].items()},
    }


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The parts, and what they said of the units learned from and (as probabilities' log odds) of those evaluated."""

    view: View  # of the targets that can be learned
    asked: ProbeOptions  # with the number of folds that is possible
    folds_asked: int
    split: Split
    parts: Sequence[Part]
    left_out: Mapping[str, LeftOut]
    said: Said
    evaluated: Floats

    @property
    def n_classes(self) -> int:
        return len(self.view.task.classes)


def _plan(view: View, parts: Sequence[Part], asked: ProbeOptions) -> _Plan:
    view = asked.take(view)
    require_one_question(parts, view, asked)
    groups = leakage_groups(view)
    found = learnable_targets(view, groups, folds=asked.folds, seed=asked.seed, strict=asked.strict_targets)
    split = split_units(found.view)
    log_odds = [part.out_of_fold_log_odds() for part in parts]
    said = Said(
        y=found.view.y[split.fitted],
        groups=groups[split.fitted],
        folds=parts[0].out_of_fold.fold,
        log_odds=np.stack(log_odds, axis=1),
        cut=cut_log_odds([part.evidence.cut for part in parts], log_odds),
    )
    return _Plan(
        view=found.view,
        asked=replace(asked, folds=found.folds, targets=()),
        folds_asked=asked.folds,
        split=split,
        parts=parts,
        left_out=found.left_out,
        said=said,
        evaluated=np.stack([log_odds_of(part.evaluated.probabilities) for part in parts], axis=1),
    )


def _sets(plan: _Plan, answer: Joined, said: Said) -> tuple[ConformalSets, ...]:
    """Find the bars of each target on what was said of the units learned from."""
    return tuple(
        conformal_sets(
            answer.calibrated.cut[:, target],
            said.y[:, target],
            said.groups,
            classes=plan.view.task.classes,
            coverage=plan.asked.coverage,
        )
        for target in range(said.y.shape[1])
    )


def _predicted(
    plan: _Plan, answer: Joined, sets: Sequence[ConformalSets], units: slice | npt.NDArray[np.bool_]
) -> Predictions:
    """Return what the blend says of some of the evaluated units."""
    scores = blended(plan.evaluated[units], answer.weights)
    probabilities = calibrated(answer.calibrators, scores)
    members = [of_target.members(probabilities[:, target]) for target, of_target in enumerate(sets)]
    first = plan.parts[0].evaluated
    return Predictions(
        unit_ids=first.unit_ids[units],
        patients=first.patients[units],
        splits=first.splits[units],
        fold=first.fold[units],
        y=first.y[units],
        scores=scores,
        probabilities=probabilities,
        members=np.stack(members, axis=1),
    )


def _cross_validated(plan: _Plan) -> Predictions:
    """Judge every unit by weights and a calibrator made without its patient, as its parts' scores were."""
    found = plan.parts[0].evaluated
    scores, probabilities = np.empty_like(found.scores), np.empty_like(found.probabilities)
    members = np.empty_like(found.members)
    for fold in counted("outer fold", range(plan.asked.folds)):
        said = _said_inside(plan, fold)
        answer = join(said, plan.n_classes)
        left_out = plan.said.folds == fold
        part = _predicted(plan, answer, _sets(plan, answer, said), left_out)
        scores[left_out], probabilities[left_out] = part.scores, part.probabilities
        members[left_out] = part.members
    return replace(found, scores=scores, probabilities=probabilities, members=members)


def _said_inside(plan: _Plan, fold: int) -> Said:
    """Return what the parts said in the inner folds while an outer fold was left out."""
    inside = plan.said.folds != fold
    inner = [part.evidence.inner for part in plan.parts if part.evidence.inner is not None]
    log_odds = [of_part.log_odds[fold, inside].astype(np.float64) for of_part in inner]
    return Said(
        y=plan.said.y[inside],
        groups=plan.said.groups[inside],
        folds=inner[0].folds[fold, inside],
        log_odds=np.stack(log_odds, axis=1),
        cut=cut_log_odds(
            [None if of_part.cut is None else of_part.cut[fold, inside] for of_part in inner], log_odds
        ),
    )


def _fitted(plan: _Plan, answer: Joined) -> Fitted:
    names = [part.name for part in plan.parts]
    losses = []
    for target, y in enumerate(plan.said.y.T):
        known = y != MISSING
        probabilities = probabilities_from_scores(answer.scores[known, target])
        losses.append(float(log_loss(y[known], probabilities)[0]))
    return Fitted(
        predictor=BlendedPredictor(
            parts={part.name: part.predictor for part in plan.parts},
            weights=answer.weights,
            calibrators=answer.calibrators,
        ),
        inputs=_inputs(plan.parts),
        trials=(),
        points=tuple(dict(zip(names, of_target, strict=True)) for of_target in answer.weights),
        losses=np.array([losses]),
        calibrations=answer.calibrated.calibrations,
        thresholds=answer.calibrated.thresholds,
        folds=plan.said.folds,
        out_of_fold_scores=answer.scores,
        out_of_fold_probabilities=answer.calibrated.probabilities,
        cut_probabilities=answer.calibrated.cut,
    )


def _inputs(parts: Sequence[Part]) -> HeadInputs:
    """Return the poolings of the parts, and every column that one of them gets."""
    chosen = [part.saved["inputs"]["chosen"] for part in parts]
    poolings = dict.fromkeys(str(way["pooling"]) for way in chosen)
    columns = dict.fromkeys(column for way in chosen for column in way["metadata"])
    return HeadInputs(", ".join(poolings), tuple(columns))


def _settings(plan: _Plan, inputs: HeadInputs) -> Settings:
    return Settings(
        options=plan.asked,
        inputs=inputs,
        mode=plan.split.mode,
        fit_splits=plan.split.fit_names,
        evaluation_split=plan.split.evaluation_name,
        folds_asked=plan.folds_asked,
        is_blend=True,
    )
