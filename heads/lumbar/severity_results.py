"""Results of the 25 lumbar targets by condition, level and side: the cells of several targets counted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.lumbar.levels import CLASSES, LEVELS, SCORED_CONDITIONS, scored_condition
from embedstore.lumbar.target_images import level_of, side_of
from embedstore.view import MISSING
from heads.lumbar.grades import draw_grades
from heads.scores import Floats
from heads.statistics.bootstrap import Draws
from heads.statistics.evaluation import Drawn, Scored, decide, draw_metrics

AUROC_OF_SEVERE = "auroc_severe"
_OF_GRADES = ("kappa", "quadratic_kappa", "accuracy", "weighted_accuracy", "weighted_f1")
_OF_PROBABILITIES = ("log_loss", "ece")
SEVERITY_METRICS = (*_OF_GRADES, AUROC_OF_SEVERE, *_OF_PROBABILITIES)
LABELS = {
    "kappa": "kappa",
    "quadratic_kappa": "quadratic kappa",
    "accuracy": "accuracy",
    "weighted_accuracy": "weighted accuracy",
    "weighted_f1": "weighted F1",
    AUROC_OF_SEVERE: "AUROC of severe",
    "log_loss": "log loss",
    "ece": "ECE",
}
COLUMNS = ("condition", "level", "side")
_SEVERE = CLASSES.index("Severe")


def parts_of_targets(targets: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Return, by condition, level and side, the positions of the targets that belong there; the canal has no side."""
    of_column = (
        (SCORED_CONDITIONS, scored_condition),
        (LEVELS, level_of),
        (("left", "right"), side_of),
    )
    return {
        column: {
            cell: positions
            for cell in cells
            if (positions := [at for at, target in enumerate(targets) if name_of(target) == cell])
        }
        for column, (cells, name_of) in zip(COLUMNS, of_column, strict=True)
    }


def draw_severity(
    scored: Scored, targets: Sequence[str], *, columns: Sequence[str] = COLUMNS
) -> dict[str, dict[str, dict[str, Drawn]]]:
    """Return column -> cell -> `SEVERITY_METRICS`, on all studies and in each draw.

    Parameters
    ----------
    scored
        Of the targets; a cell without a label or without probabilities (NaN) has no part.
    targets
        Names of its targets, of the competition's.
    columns
        Any of `COLUMNS`.

    Returns
    -------
    dict
        Those of decisions are as `heads.lumbar.grades.draw_grades`; ``auroc_severe`` is of the probability of severe
        against all else, ``ece`` classwise.
    """
    parts = parts_of_targets(targets)
    return {
        column: {cell: _of_cells(scored, positions) for cell, positions in parts[column].items()}
        for column in columns
    }


def severity_to_json(drawn: Mapping[str, Mapping[str, Mapping[str, Drawn]]]) -> dict[str, Any]:
    """Return the estimates of `draw_severity` as plain JSON values."""
    return {
        column: {
            cell: {name: entry.estimate().to_json() for name, entry in metrics.items()}
            for cell, metrics in cells.items()
        }
        for column, cells in drawn.items()
    }


def draw_all_cells(scored: Scored) -> dict[str, Drawn]:
    """Return the metrics of decisions over the cells of all targets together."""
    return {
        name: entry
        for name, entry in draw_grades(_truth(scored), _said(scored.probabilities), scored.draws).items()
        if name in _OF_GRADES
    }


def draw_cells(scored: Scored, names: Sequence[str]) -> dict[str, Drawn]:
    """Return metrics of the labelled cells of all targets together, each of which counts as a unit."""
    y = _truth(scored)
    unit, column = np.nonzero(y != MISSING)
    draws = Draws(scored.draws.counts, scored.draws.patient_of_unit[unit])
    return draw_metrics(_cells(y[unit, column], scored.probabilities[unit, column], draws), names)


def _of_cells(scored: Scored, positions: Sequence[int]) -> dict[str, Drawn]:
    of_part = Scored(scored.y[:, positions], scored.probabilities[:, positions], scored.draws)
    found = draw_all_cells(of_part)
    y = _truth(of_part)
    unit, column = np.nonzero(y != MISSING)
    known, probabilities = y[unit, column], of_part.probabilities[unit, column]
    draws = Draws(scored.draws.counts, scored.draws.patient_of_unit[unit])
    severe = probabilities[:, _SEVERE]
    binary = np.stack([1 - severe, severe], axis=1)
    of_severe = draw_metrics(_cells((known == _SEVERE).astype(np.int64), binary, draws), ("auroc",))
    # Without a single labelled cell there is nothing to state.
    if "auroc" in of_severe:
        found[AUROC_OF_SEVERE] = of_severe["auroc"]
    return found | draw_cells(of_part, _OF_PROBABILITIES)


def _cells(y: npt.NDArray[np.int64], probabilities: Floats, draws: Draws) -> Scored:
    """Return cells as units of one target."""
    return Scored(y[:, None], probabilities[:, None], draws)


def _truth(scored: Scored) -> npt.NDArray[np.int64]:
    return np.where(np.isnan(scored.probabilities).any(axis=2), MISSING, scored.y)


def _said(probabilities: Floats) -> npt.NDArray[np.int64]:
    """Return the likeliest class of each cell, `MISSING` where there are no probabilities."""
    unknown = np.asarray(np.isnan(probabilities).any(axis=2))
    said = decide(np.where(unknown[..., None], 0.0, probabilities).reshape(-1, len(CLASSES)))
    return np.where(unknown, MISSING, said.reshape(unknown.shape))
