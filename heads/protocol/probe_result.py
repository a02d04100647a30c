"""What a probe leaves behind, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedstore.brief import Brief
from embedstore.view import View
from heads.inputs.input_ways import HeadInputs
from heads.protocol.fitting import Fitted
from heads.protocol.learnable_targets import LeftOut
from heads.protocol.learning_curve import LearningCurve
from heads.protocol.options import ProbeOptions
from heads.protocol.predictions import Evidence, Predictions
from heads.protocol.splits import Mode
from heads.statistics.abstention import Answered
from heads.statistics.bootstrap import Estimate
from heads.statistics.conformal import ConformalSets
from heads.statistics.decision_curve import DecisionCurve
from heads.statistics.outliers import Outliers


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a probe was run: what it was told, and what followed from the data.

    Parameters
    ----------
    options
        What it was told.
    inputs
        What the head gets of a unit: the only way, or the one that was chosen.
    mode
        Whether the data set's split or an outer cross-validation evaluated it.
    fit_splits, evaluation_split
        The splits it learned from and was evaluated on; ``()`` and ``""`` in cross-validation.
    folds_asked
        Number of folds that was asked for; the options hold that which was possible.
    repeats
        Partitions of the ensemble that answers; 0 where the heads were refitted.
    is_blend
        Whether a blend of heads answers, each of which may be refitted or an ensemble.
    """

    options: ProbeOptions
    inputs: HeadInputs
    mode: Mode
    fit_splits: tuple[str, ...]
    evaluation_split: str
    folds_asked: int
    repeats: int = 0
    is_blend: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, as ``run.json`` keeps them; without a preset it is ``""``, without shots 0."""
        options = self.options
        return {
            "head": options.head,
            "mode": self.mode,
            "fit_splits": list(self.fit_splits),
            "evaluation_split": self.evaluation_split,
            "pooling": self.inputs.pooling,
            "class_weights": options.class_weights,
            "shots": options.shots or 0,
            "shared_heads": [list(group) for group in options.shared_heads],
            "folds": options.folds,
            "folds_asked": self.folds_asked,
            "final": "blend" if self.is_blend else "ensemble" if self.repeats else "refit",
            "repeats": self.repeats,
            "draws": options.draws,
            "seed": options.seed,
            "coverage": options.coverage,
            "preset": options.preset or "",
            "metadata": list(self.inputs.metadata),
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics on the evaluation set.

    Parameters
    ----------
    overall
        Metric -> estimate at threshold 0.5 (or the likeliest of several classes), the mean over targets.
    without_image
        Metric -> estimate of saying the prevalence of training of every unit, whatever its image shows.
    before_calibration
        The same as `overall` without calibrator: with ``mean-probability`` and 0.5, MURA's official rule.
    by_target
        Target -> metric -> estimate.
    by_subgroup
        Column -> value -> metric -> estimate.
    at_threshold
        Rule -> metric -> estimate, with thresholds from out-of-fold probabilities; two classes only.
    sets
        Target -> what the conformal sets held (`evaluate_sets`); ``{}`` where they were refused.
    decision_curves
        Target -> net benefit of acting on the task's positive class; ``{}`` where it names none.
    abstention
        Target -> accuracy of the surest answers.
    grade_thresholds
        For each target, grade -> rule -> threshold of it or a graver one (`heads.statistics.thresholds`); ``()`` of two
        classes, and of classes that are no grades.
    at_grades
        Grade -> rule -> metric -> estimate of deciding "this grade or a graver one", the mean over targets.
    """

    overall: Mapping[str, Estimate]
    without_image: Mapping[str, Estimate]
    before_calibration: Mapping[str, Estimate]
    by_target: Mapping[str, Mapping[str, Estimate]]
    by_subgroup: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    at_threshold: Mapping[str, Mapping[str, Estimate]]
    sets: Mapping[str, Mapping[str, Estimate]]
    decision_curves: Mapping[str, DecisionCurve]
    abstention: Mapping[str, Sequence[Answered]]
    grade_thresholds: Sequence[Mapping[str, Mapping[str, float]]] = ()
    at_grades: Mapping[str, Mapping[str, Mapping[str, Estimate]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, repr=False)
class ProbeResult(Brief):
    """One head on one task.

    Parameters
    ----------
    view
        What it was run on.
    settings
        How.
    fitted
        Heads, calibrators and thresholds, fitted on all rows that may be learned from.
    conformal
        Bars of the conformal sets, by target.
    outliers
        Distances of the units learned from; None where no vector of them may be kept.
    out_of_fold
        Units learned from, each by models that never saw its patient.
    evaluated
        The evaluation set: the units of the evaluation split, or every unit by the outer fold's model.
    evaluation
        Metrics of `evaluated`.
    excluded
        Reason -> how many images or units had no part.
    seconds
        Step -> seconds.
    learning_curve
        Metrics by number of patients, where it was asked for.
    left_out
        Target -> why it is not in the view: too few patients to learn it from.
    decided_by
        What the result rests on (`heads.protocol.decided_by`); its digest is the id of the run.
    evidence
        What else was said out of fold, from which a blend learns.
    parts
        Of a blend: head, ``run_id``, inputs and heads of each part, as ``run.json`` keeps them.
    """

    view: View
    settings: Settings
    fitted: Fitted
    conformal: tuple[ConformalSets, ...]
    outliers: Outliers | None
    out_of_fold: Predictions
    evaluated: Predictions
    evaluation: Evaluation
    excluded: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)
    learning_curve: LearningCurve | None = None
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    decided_by: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    parts: Sequence[Mapping[str, Any]] = ()

    def _facts(self) -> dict[str, Any]:
        return {
            "task": self.view.task.name,
            "head": self.settings.options.head,
            "learned_from": len(self.out_of_fold.unit_ids),
            "evaluated": len(self.evaluated.unit_ids),
            "metric": {
                name: round(entry.value, 3)
                for name, entry in self.evaluation.overall.items()
                if name == self.view.task.primary_metric
            },
        }
