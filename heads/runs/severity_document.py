"""What ``run.json`` says of the RSNA lumbar competition: its score, and results by condition, level and side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedstore.view import MISSING
from heads.lumbar.complete_answers import CompleteAnswers, complete_answers
from heads.lumbar.rsna_score import draw_run_score, is_of_the_competition
from heads.lumbar.severity_results import draw_severity, severity_to_json
from heads.protocol.probe_result import ProbeResult
from heads.statistics.bootstrap import draw_patients, estimates_to_json
from heads.statistics.evaluation import Scored

# What a run learned from: coordinates that somebody drew, or points that a localiser found.
ORACLE = "oracle"


def severity_document(result: ProbeResult) -> dict[str, Any]:
    """Return ``rsna_score``, ``severity`` and ``severity_cells``; nothing of other tasks than the competition's."""
    options, task = result.settings.options, result.view.task
    points = points_of(result.view.identity.to_json())
    of_crops = {"points": points} if points else {}
    if not is_of_the_competition(task.targets, task.classes):
        return of_crops
    answers = _complete(result)
    draws = draw_patients(result.evaluated.patients, draws=options.draws, seed=options.seed)
    scored = Scored(answers.y, answers.probabilities, draws)
    drawn = draw_run_score(scored, task.targets)
    return {
        **of_crops,
        "rsna_score": estimates_to_json({name: entry.estimate() for name, entry in drawn.items()}),
        "severity": severity_to_json(draw_severity(scored, task.targets)),
        "severity_cells": {"labelled": answers.cells, "from_prevalence": answers.filled},
    }


def points_of(identity: Mapping[str, Any]) -> str:
    """Return where the level points of a run's crops come from, ``oracle`` or ``localised``; ``""`` of whole images."""
    crop = identity.get("preprocess", {}).get("crop") or {}
    return str(crop.get("points", ""))


def _complete(result: ProbeResult) -> CompleteAnswers:
    """Return the answers of the evaluated units, also of the targets that they have no image for."""
    evaluated, lost = result.evaluated, result.view.y_without_image
    y = evaluated.y
    if lost is not None:
        row_of = {unit: row for row, unit in enumerate(result.view.unit_ids.tolist())}
        own = lost[[row_of[unit] for unit in evaluated.unit_ids.tolist()]]
        y = np.where(y == MISSING, own, y)
    return complete_answers(
        y,
        evaluated.probabilities,
        evaluated.fold,
        learned=result.out_of_fold.y,
        learned_folds=result.out_of_fold.fold,
    )
