"""Lumbar answers side by side: one row for each run, each file of generated answers, and the prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.lumbar.levels import CONDITIONS
from embedstore.view import MISSING
from heads.comparing.calibration_curves import CalibrationCurve, calibration_curves
from heads.lumbar.grades import GRADE_METRICS, draw_grades
from heads.lumbar.rsna_score import AS_GIVEN, SCORE, draw_run_score, is_of_the_competition
from heads.lumbar.severity_results import draw_cells
from heads.scores import Floats
from heads.statistics.bootstrap import Difference, Draws, Estimate, holm, paired_difference
from heads.statistics.evaluation import Drawn, Scored, decide, draw_metrics

SCORES = (SCORE, AS_GIVEN)
CALIBRATION = ("log_loss", "ece")
# With differences to the baseline. An ECE is a sum that noise only adds to, so its differences say little.
DIFFERENCES = (*GRADE_METRICS, SCORE, "log_loss")
OF_CONDITION = ("kappa", "accuracy")
RUN, RESPONSES, PRIOR = "run", "responses", "prior"


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Who answers, and what.

    Parameters
    ----------
    name
        What it is called.
    kind
        `RUN`, `RESPONSES` or `PRIOR`.
    said
        (n_studies, targets) int64, decided classes; `MISSING` where an answer counts as missing.
    probabilities
        (n_studies, targets, 3), or None where there are none.
    """

    name: str
    kind: str
    said: npt.NDArray[np.int64]
    probabilities: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class ComparedAnswers:
    """One row.

    Parameters
    ----------
    name, kind
        As `Answerer`.
    cells
        Labelled cells that it answered.
    metrics
        `GRADE_METRICS` of all cells, and with probabilities the RSNA score (of all 25 targets), the log loss (mean over
        targets) and the ECE (of all cells).
    conditions
        Condition -> `OF_CONDITION`.
    calibration
        Event -> its curve over all cells, of what has probabilities.
    differences
        Metric -> this row minus the baseline on the cells of this row; ``{}`` for the baseline itself.
    corrected_p
        Metric -> p-value after Holm, over all rows but the baseline.
    """

    name: str
    kind: str
    cells: int
    metrics: Mapping[str, Estimate]
    conditions: Mapping[str, Mapping[str, Estimate]]
    calibration: Mapping[str, CalibrationCurve]
    differences: Mapping[str, Difference]
    corrected_p: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "cells": self.cells,
            "metrics": _json(self.metrics),
            "conditions": {name: _json(found) for name, found in self.conditions.items()},
            "calibration": {event: curve.to_json() for event, curve in self.calibration.items()},
            "differences": {
                name: found.estimate.to_json()
                | {"p_value": found.p_value, "p_value_holm": self.corrected_p[name]}
                for name, found in self.differences.items()
            },
        }


def decisions_of(probabilities: Floats) -> npt.NDArray[np.int64]:
    """Return the likeliest class of (n_studies, targets, 3) probabilities."""
    return np.stack([decide(probabilities[:, column]) for column in range(probabilities.shape[1])], axis=1)


def compare_answers(
    answerers: Sequence[Answerer],
    y: npt.NDArray[np.int64],
    draws: Draws,
    *,
    targets: Sequence[str],
    classes: Sequence[str],
    baseline: int,
) -> tuple[ComparedAnswers, ...]:
    """Compare answers about the same studies with those of a baseline, which answered every cell.

    Parameters
    ----------
    answerers
        In the order of the rows.
    y
        (n_studies, targets) int64, `MISSING` where there is no label.
    draws
        Of the studies' patients, the same for all.
    targets, classes
        Names.
    baseline
        Position of the one that the others are compared with.
    """
    whole = is_of_the_competition(targets, classes)
    drawn = [_drawn(one, y, draws, targets if whole else ()) for one in answerers]
    differences = [
        _differences(of_one, _on_cells_of(one, answerers[baseline], y, draws, drawn[baseline]))
        if position != baseline
        else {}
        for position, (one, of_one) in enumerate(zip(answerers, drawn, strict=True))
    ]
    corrected = _corrected(differences)
    conditions = {
        name: columns
        for name in CONDITIONS
        if (columns := [at for at, target in enumerate(targets) if target.startswith(name)])
    }
    return tuple(
        ComparedAnswers(
            name=one.name,
            kind=one.kind,
            cells=int(((one.said != MISSING) & (y != MISSING)).sum()),
            metrics={name: entry.estimate() for name, entry in of_one.items()},
            conditions={
                name: _of_condition(one.said[:, columns], y[:, columns], draws)
                for name, columns in conditions.items()
            },
            calibration={} if one.probabilities is None else calibration_curves(y, one.probabilities),
            differences=difference,
            corrected_p=p,
        )
        for one, of_one, difference, p in zip(answerers, drawn, differences, corrected, strict=True)
    )


def _drawn(
    one: Answerer, y: npt.NDArray[np.int64], draws: Draws, of_competition: Sequence[str]
) -> dict[str, Drawn]:
    found = draw_grades(y, one.said, draws)
    if one.probabilities is None:
        return found
    scored = Scored(y, one.probabilities, draws)
    if of_competition:
        scores = draw_run_score(scored, of_competition)
        found |= {name: scores[name] for name in SCORES}
    # The studies in common are often too few for the bins of a target, so an ECE is that of all cells together.
    return found | draw_metrics(scored, ("log_loss",)) | draw_cells(scored, ("ece",))


def _on_cells_of(
    one: Answerer,
    base: Answerer,
    y: npt.NDArray[np.int64],
    draws: Draws,
    of_base: Mapping[str, Drawn],
) -> Mapping[str, Drawn]:
    """Return what the baseline is worth on the cells that another one answered."""
    if (one.said != MISSING).all():
        return of_base
    return draw_grades(y, np.where(one.said == MISSING, MISSING, base.said), draws)


def _differences(of_one: Mapping[str, Drawn], of_base: Mapping[str, Drawn]) -> dict[str, Difference]:
    return {
        name: paired_difference(
            (of_one[name].value, of_base[name].value),
            (of_one[name].drawn, of_base[name].drawn),
            n=of_one[name].n,
        )
        for name in DIFFERENCES
        if name in of_one and name in of_base and np.isfinite([of_one[name].value, of_base[name].value]).all()
    }


def _corrected(differences: Sequence[Mapping[str, Difference]]) -> list[dict[str, float]]:
    """Return, for each row, metric -> p-value corrected for the number of rows that are compared in it."""
    corrected: list[dict[str, float]] = [{} for _ in differences]
    for name in DIFFERENCES:
        compared = [position for position, of_row in enumerate(differences) if name in of_row]
        p_values = holm([differences[position][name].p_value for position in compared])
        for position, p in zip(compared, p_values, strict=True):
            corrected[position][name] = p
    return corrected


def _of_condition(said: npt.NDArray[np.int64], y: npt.NDArray[np.int64], draws: Draws) -> dict[str, Estimate]:
    drawn = draw_grades(y, said, draws)
    return {name: drawn[name].estimate() for name in OF_CONDITION}


def _json(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: found.to_json() for name, found in metrics.items()}
