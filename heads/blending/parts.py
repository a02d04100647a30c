"""What a blend needs of each head: its predictor, and what it said of every unit whose patient it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.errors import UsageError
from embedstore.view import View
from heads.protocol.decided_by import id_of, question_of
from heads.protocol.options import ProbeOptions
from heads.protocol.predictions import NO_FOLD, Evidence, Predictions
from heads.protocol.predictor import BlendedPredictor, Predictor, calibrated
from heads.protocol.probe_result import ProbeResult
from heads.runs.run import Run
from heads.runs.run_document import run_document
from heads.scores import Floats, log_odds_of
from heads.statistics.outliers import Outliers

# Of each target's head in ``run.json``; the rest is the part's own story.
_KEPT = (
    "target",
    "point",
    "params",
    "members",
    "reliability",
    "training_weights",
    "out_of_fold_log_loss",
    "calibration",
    "converged",
)
# Of what decided a run: a blend is of heads that had all of these in common, and all options but some.
_COMMON = ("identity", "task", "data")
_OWN = ("head", "preset")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One head of a blend.

    Parameters
    ----------
    name
        Its head.
    predictor
        Heads and calibrators.
    out_of_fold, evaluated, evidence
        As `heads.protocol.probe_result.ProbeResult`.
    outliers
        Distances of the units learned from; None where no vector of them may be kept.
    decided_by
        What it rests on.
    saved
        What is kept of it in the blend's ``run.json``.
    """

    name: str
    predictor: Predictor
    out_of_fold: Predictions
    evaluated: Predictions
    evidence: Evidence
    outliers: Outliers | None
    decided_by: Mapping[str, Any]
    saved: Mapping[str, Any]

    def out_of_fold_log_odds(self) -> Floats:
        """Return (n_units, targets, columns) log odds of the units learned from, cross-fitted where labelled."""
        probabilities = self.out_of_fold.probabilities.copy()
        unlabelled = np.isnan(probabilities).all(axis=2)
        stated = calibrated(self.predictor.calibrators, self.out_of_fold.scores)
        probabilities[unlabelled] = stated[unlabelled]
        return log_odds_of(probabilities)


def part_of(found: ProbeResult | Run) -> Part:
    """Return what a blend needs of a probe or of a saved run; raises UsageError where it is neither, or is a blend."""
    if not isinstance(found, ProbeResult | Run):
        raise UsageError(f"parts must be results of heads.probe or runs; found {type(found).__name__}")
    document = found.document if isinstance(found, Run) else run_document(found)
    predictor = found.predictor if isinstance(found, Run) else found.fitted.predictor
    name = document["settings"]["head"]
    if isinstance(predictor, BlendedPredictor):
        raise UsageError(f"parts must be heads; {name!r} is a blend itself: give its parts in its place")
    if "decided_by" not in document:
        raise UsageError(f"part {name!r} is a run of an earlier release, which kept too little: probe again")
    decided = document["decided_by"]
    return Part(
        name=name,
        predictor=predictor,
        out_of_fold=found.out_of_fold,
        evaluated=found.evaluated,
        evidence=found.evidence,
        outliers=found.outliers,
        decided_by=decided,
        saved={
            "head": name,
            "run_id": id_of(decided),
            "inputs": {
                key: document["inputs"][key]
                for key in ("chosen", "blocks", "bins")
                if key in document["inputs"]
            },
            "heads": [{key: entry[key] for key in _KEPT if key in entry} for entry in document["heads"]],
        },
    )


def require_one_question(parts: Sequence[Part], view: View, options: ProbeOptions) -> None:
    """Refuse parts that were learned from or evaluated on other things than asked.

    Parameters
    ----------
    parts
        One head or more.
    view
        As the options take it.
    options
        That the parts were probed with, but for the head.

    Raises
    ------
    UsageError
        If there is none, a head is there twice, vectors, labels, patients or options differ, or a part lacks what its
        inner folds said.
    """
    if not parts:
        raise UsageError("parts must be one head or more; found none")
    names = [part.name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"parts must be different heads; found {twice[0]!r} twice")
    asked = question_of(view, options)
    for part in parts:
        found = part.decided_by
        differing = [name for name in _COMMON if found[name] != asked[name]]
        differing += [
            name
            for name, value in asked["options"].items()
            if name not in _OWN and found["options"].get(name) != value
        ]
        if differing:
            raise UsageError(
                f"part {part.name!r} must be a probe of this view with these options; it differs in "
                f"{', '.join(differing)}: probe again, or give what it was made with"
            )
        if part.evidence.inner is None and (part.evaluated.fold != NO_FOLD).any():
            raise UsageError(
                f"part {part.name!r} was cross-validated and lacks what its inner folds said: probe again"
            )
