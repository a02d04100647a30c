"""How a head gets better with more patients, and so whether more labels are worth their cost.

For 64, 128, ... patients the whole protocol (selection, calibration, refit) is run on patients drawn at random,
several times, and every head is evaluated on the same units. The interval of a size is that of the bootstrap
draws of all its repeats together: it holds both who was evaluated and who happened to be learned from.

What two and four times the patients would bring is extrapolated (`heads.intervals.power_law`): in every draw of the
evaluated patients the repeats of each size are drawn as well, and a law is fitted to their means. Who happens to be
among the patients that there are is drawn, too, as that moves all sizes alike and no repeat shows it: a gain has the
variance of two heads, of the patients there are and of those to come (`heads.intervals.power_law.sampling_variance`).
What this cannot know: whether the law holds beyond them (a head that is still at chance shows no law), and whether new
patients will be like them.
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
from heads.intervals.power_law import LEAST_SIZES, fit_power_law, sampling_variance
from heads.protocol.fitting import Fitted, fit
from heads.protocol.options import ProbeOptions, options_of
from heads.protocol.splits import split_units
from heads.stages import counted
from heads.statistics.bootstrap import Estimate, draw_patients, estimate, estimates_to_json
from heads.statistics.evaluation import Drawn, Scored, draw_metrics
from heads.statistics.metrics import METRICS, computed_in, metric

SMALLEST = 64
REPEATS = 5
# As many times the patients that there are.
EXTRAPOLATED_TIMES = (2, 4)
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
class Extrapolation:
    """What more patients would bring.

    Parameters
    ----------
    times
        As many times the patients of the last point.
    patients
        How many that is.
    metrics
        Metric -> its value by the law, with the interval of all draws.
    gains
        Metric -> how much better that is than the law's value for the patients that there are: 0 or more, the ends of
        its interval may lie below.
    """

    times: int
    patients: int
    metrics: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]


@dataclass(frozen=True)
class LearningCurve:
    """Metrics by number of patients.

    Parameters
    ----------
    points
        From few patients to all.
    skipped
        Patients -> why nothing could be learned from so few.
    extrapolated
        For two and four times the patients; empty where there are fewer than three points.
    """

    points: tuple[LearningPoint, ...]
    skipped: Mapping[int, str] = field(default_factory=dict)
    extrapolated: tuple[Extrapolation, ...] = ()

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
            "extrapolated": [
                {
                    "times": beyond.times,
                    "patients": beyond.patients,
                    "metrics": estimates_to_json(beyond.metrics),
                    "gains": estimates_to_json(beyond.gains),
                }
                for beyond in self.extrapolated
            ],
        }


def learning_curve(
    view: View,
    options: ProbeOptions | str = "logistic",
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = REPEATS,
    family: HeadFamily | None = None,
    metrics: Sequence[str] = (),
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
    metrics
        Names of further metrics, beside the task's primary one and those that every curve has.

    Raises
    ------
    UsageError
        If a size or `repeats` is below 1, or there is no such metric.

    Examples
    --------
    >>> curve = heads.learning_curve(view, heads.ProbeOptions(draws=20), sizes=[24], repeats=2)
    >>> curve.points[0].patients
    24
    """
    if repeats < 1 or (sizes is not None and min(sizes, default=0) < 1):
        raise UsageError(f"repeats and sizes must be 1 or more; found repeats={repeats}, sizes={sizes}")
    names = _metrics(view, metrics)
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
    points, skipped, kept = [], {}, []
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
                drawn.append(draw_metrics(scored, names))
        except DataError as error:
            skipped[size] = str(error)
            continue
        points.append(LearningPoint(size, times, _joined(drawn)))
        kept.append(drawn)
    sizes_kept = np.array([point.patients for point in points], np.int64)
    return LearningCurve(tuple(points), skipped, _extrapolated(sizes_kept, kept, seed=asked.seed))


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


def _metrics(view: View, further: Sequence[str]) -> tuple[str, ...]:
    names = (view.task.primary_metric, *computed_in("learning curve"))
    known = (name for name in names if name in METRICS)
    return tuple(dict.fromkeys([*known, *(metric(name).name for name in further)]))


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


def _extrapolated(
    patients: npt.NDArray[np.int64], kept: Sequence[Sequence[Mapping[str, Drawn]]], *, seed: int
) -> tuple[Extrapolation, ...]:
    """Return what more patients would bring; nothing where there are too few sizes to fit a law."""
    if len(patients) < LEAST_SIZES:
        return ()
    weights = np.asarray(patients * [len(repeats) for repeats in kept], np.float64)
    found: dict[int, tuple[dict[str, Estimate], dict[str, Estimate]]] = {
        times: ({}, {}) for times in EXTRAPOLATED_TIMES
    }
    for name in kept[0][0]:
        better = METRICS[name].better
        if better not in ("larger", "smaller"):
            continue
        values = [[of[name].value for of in repeats] for repeats in kept]
        of_all = np.array([[np.mean(of_size) for of_size in values]])
        of_draws = _drawn_means([[of[name] for of in repeats] for repeats in kept], seed=seed)
        of_draws = of_draws[np.isfinite(of_draws).all(axis=1)]
        if not np.isfinite(of_all).all() or not len(of_draws):
            continue
        # The best that a metric can be is 1 where larger is better, and 0 where smaller is.
        sign = -1.0 if better == "larger" else 1.0
        errors = [1 - each if better == "larger" else each for each in (of_all, of_draws)]
        laws = [fit_power_law(patients, each, weights) for each in errors]
        now, variance = int(patients[-1]), sampling_variance(patients, values)
        generator = np.random.default_rng(seed)
        n = kept[-1][0][name].n
        for times, (metrics, gains) in found.items():
            chance = generator.normal(0, np.sqrt(variance * (1 / now + 1 / (now * times))), len(of_draws))
            gained = [law.error(now) - law.error(now * times) for law in laws]
            ends = [law.error(now * times) for law in laws]
            best = 1.0 if better == "larger" else 0.0
            metrics[name] = estimate(float(best + sign * ends[0][0]), best + sign * (ends[1] - chance), n=n)
            gains[name] = estimate(float(gained[0][0]), gained[1] + chance, n=n)
    return tuple(
        Extrapolation(times, int(patients[-1]) * times, *of_times) for times, of_times in found.items()
    )


def _drawn_means(sizes: Sequence[Sequence[Drawn]], *, seed: int) -> npt.NDArray[np.float64]:
    """Return (draws, sizes) means over the repeats of each size, which are drawn as the evaluated patients are."""
    generator = np.random.default_rng(seed)
    columns = []
    for repeats in sizes:
        drawn = np.stack([repeat.drawn for repeat in repeats])
        taken = generator.integers(0, len(repeats), drawn.shape)
        columns.append(np.take_along_axis(drawn, taken, axis=0).mean(axis=0))
    return np.stack(columns, axis=1)
