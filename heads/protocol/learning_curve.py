"""How a head gets better with more patients, and so whether more labels are worth their cost.

For 64, 128, ... patients the whole protocol (selection, calibration, refit) is run on patients drawn at random,
several times, and every head is evaluated on the same units. The interval of a size is that of the bootstrap
draws of all its repeats together: it holds both who was evaluated and who happened to be learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.view import View
from heads.base import HeadFamily
from heads.folds import assign_folds
from heads.inputs.leakage import leakage_groups
from heads.inputs.unit_images import UnitImages
from heads.protocol.fitting import Fitted, fit
from heads.protocol.options import ProbeOptions, options_of
from heads.protocol.splits import split_units
from heads.stages import counted
from heads.statistics.bootstrap import Estimate, draw_patients, estimate, estimates_to_json
from heads.statistics.evaluation import Drawn, Scored, draw_metrics
from heads.statistics.metrics import METRICS, computed_in

SMALLEST = 64
REPEATS = 5
# Where no split is given, one patient in so many is kept for evaluation.
_EVALUATION_FOLDS = 5


@dataclass(frozen=True)
class LearningPoint:
    """One number of patients.

    Parameters
    ----------
    patients
        Patients that were learned from.
    repeats
        How often they were drawn; once when these are all.
    metrics
        Metric -> mean over the repeats, with the interval of all draws.
    """

    patients: int
    repeats: int
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class LearningCurve:
    """Metrics by number of patients.

    Parameters
    ----------
    points
        From few patients to all.
    skipped
        Patients -> why nothing could be learned from so few.
    """

    points: tuple[LearningPoint, ...]
    skipped: Mapping[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "points": [
                {
                    "patients": point.patients,
                    "repeats": point.repeats,
                    "metrics": estimates_to_json(point.metrics),
                }
                for point in self.points
            ],
            "skipped": {str(size): reason for size, reason in self.skipped.items()},
        }


def learning_curve(
    view: View,
    options: ProbeOptions | str = "logistic",
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = REPEATS,
    family: HeadFamily | None = None,
) -> LearningCurve:
    """Run the protocol on fewer patients.

    Parameters
    ----------
    view
        As `heads.protocol.probe.probe`, which checks it.
    options, family
        As `heads.protocol.probe.probe`.
    sizes
        Numbers of patients; by default 64, 128, ... and all. More than there are is all.
    repeats
        Random draws of patients for each size.

    Raises
    ------
    UsageError
        If a size or `repeats` is below 1.

    Examples
    --------
    >>> curve = heads.learning_curve(view, heads.ProbeOptions(draws=20), sizes=[24], repeats=2)
    >>> curve.points[0].patients
    24
    """
    if repeats < 1 or (sizes is not None and min(sizes, default=0) < 1):
        raise UsageError(f"repeats and sizes must be 1 or more; found repeats={repeats}, sizes={sizes}")
    asked = options_of(options)
    grid = asked.grid(family)
    view = asked.take(view)
    ways = asked.ways(view)
    groups = leakage_groups(view)
    learned, evaluated = _parts(view, groups, asked.seed)
    rows = UnitImages.of_view(view, groups)
    evaluated_rows = rows.take(evaluated)
    from_patients = draw_patients(view.patients[evaluated], draws=asked.draws, seed=asked.seed)
    generator = np.random.default_rng(asked.seed)
    present = np.unique(groups[learned])
    points, skipped = [], {}
    for size in _sizes(len(present), sizes):
        times = repeats if size < len(present) else 1
        drawn = []
        try:
            for repeat in counted(f"learning curve, {size:,} patients, repeat", range(times)):
                chosen = generator.choice(present, size, replace=False) if size < len(present) else present
                fitted = fit(
                    rows.take(learned & np.isin(groups, chosen)),
                    grid,
                    view.task,
                    inputs=ways,
                    folds=asked.folds,
                    class_weights=asked.class_weights,
                    seed=asked.seed + repeat,
                    final=asked.final,
                    repeats=asked.repeats,
                    shared=asked.shared_heads,
                )
                scored = Scored(
                    evaluated_rows.y,
                    _probabilities(fitted, evaluated_rows),
                    from_patients,
                    ordered=view.task.ordered,
                )
                drawn.append(draw_metrics(scored, _metrics(view)))
        except DataError as error:
            skipped[size] = str(error)
            continue
        points.append(LearningPoint(size, times, _joined(drawn)))
    return LearningCurve(tuple(points), skipped)


def _parts(
    view: View, groups: npt.NDArray[np.int64], seed: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return units to learn from and units to evaluate on: of the official split, or a fifth of the patients."""
    split = split_units(view)
    if split.mode != "outer cross-validation":
        return split.fitted, split.evaluated
    units = np.flatnonzero(split.fitted)
    _, own = np.unique(groups[units], return_inverse=True)
    n_classes = len(view.task.classes)
    fold = assign_folds(view.y[units], own, folds=_EVALUATION_FOLDS, n_classes=n_classes, seed=seed)
    evaluated = np.zeros(len(view.unit_ids), np.bool_)
    evaluated[units[fold == 0]] = True
    return split.fitted & ~evaluated, evaluated


def _sizes(patients: int, wanted: Sequence[int] | None) -> list[int]:
    if wanted is not None:
        return sorted({min(size, patients) for size in wanted})
    doubled = [SMALLEST << step for step in range(32) if SMALLEST << step < patients]
    return [*doubled, patients]


def _metrics(view: View) -> tuple[str, ...]:
    names = (view.task.primary_metric, *computed_in("learning curve"))
    return tuple(dict.fromkeys(name for name in names if name in METRICS))


def _probabilities(fitted: Fitted, rows: UnitImages) -> npt.NDArray[np.float64]:
    scores = fitted.predictor.scores(
        rows.X,
        rows.unit_of_row,
        n_units=rows.n_units,
        metadata=rows.metadata,
        image_of_target=rows.image_of_target,
    )
    return fitted.predictor.probabilities(scores)


def _joined(repeats: Sequence[Mapping[str, Drawn]]) -> dict[str, Estimate]:
    return {
        name: estimate(
            float(np.mean([of_repeat[name].value for of_repeat in repeats])),
            np.concatenate([of_repeat[name].drawn for of_repeat in repeats]),
            n=repeats[0][name].n,
            patients=min(of_repeat[name].stands_on for of_repeat in repeats),
            fall=max(of_repeat[name].fall for of_repeat in repeats),
        )
        for name in repeats[0]
    }
