"""Metrics with patient-level intervals of any model's probabilities, in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedstore.errors import UsageError, first_few, require_whole_number
from heads.statistics.bootstrap import DRAWS, Estimate, draw_patients
from heads.statistics.evaluation import Scored, evaluate
from heads.statistics.metrics import METRICS, metric

_SUM_TOLERANCE = 1e-6


def metric_names() -> list[str]:
    """Return the names of the metrics that `measure` computes.

    Examples
    --------
    >>> heads.metric_names()[:2]
    ['auroc', 'auprc']
    """
    return [name for name, row in METRICS.items() if not row.needs_class_weights]


def measure(
    y: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    patients: npt.ArrayLike,
    metrics: Sequence[str] | None = None,
    threshold: float = 0.5,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return metrics with 95 % intervals, of which the bootstrap draws whole patients.

    Parameters
    ----------
    y
        (n,) int: index of the true class, of two classes 1 for the positive one.
    probabilities
        (n, n_classes), of which each row sums to 1, or (n,) of the positive one of two classes.
    patients
        (n,) patient of each unit.
    metrics
        Some of `metric_names`; all by default.
    threshold
        Probability from which the positive one of two classes is decided.
    draws
        Bootstrap draws of patients.
    seed
        Of the draws.

    Raises
    ------
    UsageError
        If lengths differ, there is no unit, labels are no class, probabilities are none, a patient is missing, or
        there is no metric of a name.

    Examples
    --------
    >>> found = heads.measure([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.7], patients=["a", "a", "b", "c"], metrics=["auroc"])
    >>> found["auroc"].value
    1.0
    """
    truth, scores = np.asarray(y), np.asarray(probabilities, np.float64)
    scores = np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores
    who = np.asarray(patients, object)
    if not truth.shape == who.shape == scores.shape[:1] or scores.ndim != 2:
        raise UsageError(
            f"y, probabilities and patients must have one row for each unit; found shapes {truth.shape}, "
            f"{scores.shape} and {who.shape}"
        )
    if not len(truth):
        raise UsageError("no units given: y, probabilities and patients are empty")
    _require_probabilities(scores)
    _require_patients(who)
    require_whole_number("draws", draws)
    require_whole_number("seed", seed)
    if truth.dtype.kind not in "iub" or truth.min() < 0 or truth.max() >= scores.shape[1]:
        found = first_few(np.unique(truth).tolist())
        raise UsageError(
            f"y must hold whole numbers from 0 to {scores.shape[1] - 1}; found {truth.dtype} {found}"
        )
    wanted = metric_names() if metrics is None else list(metrics)
    unknown = [name for name in wanted if metric(name).needs_class_weights]
    if unknown:
        raise UsageError(f"metrics must be among {', '.join(metric_names())}; found {unknown[0]!r}")
    scored = Scored(
        truth.astype(np.int64)[:, None],
        scores[:, None],
        draw_patients(who.astype(np.str_), draws=draws, seed=seed),
    )
    return evaluate(scored, wanted, thresholds=[threshold])


def _require_probabilities(scores: npt.NDArray[np.float64]) -> None:
    wrong = np.argwhere(~((scores >= 0) & (scores <= 1)))
    if len(wrong):
        row, column = wrong[0]
        raise UsageError(
            f"probabilities must be finite and from 0 to 1; found {scores[row, column]:g} in row {row}, class {column}"
        )
    sums = scores.sum(axis=1)
    uneven = np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE)
    if len(uneven):
        raise UsageError(
            f"each row of probabilities must sum to 1; found {sums[uneven[0]]:.6g} in row {uneven[0]}"
        )


def _require_patients(who: npt.NDArray[np.object_]) -> None:
    for row, patient in enumerate(who):
        if patient is None or (isinstance(patient, float | np.floating) and np.isnan(patient)):
            raise UsageError(
                f"patients must name the patient of each unit; found {patient} in row {row}: where patients are "
                "unknown, give each unit a name of its own"
            )
