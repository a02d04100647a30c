"""What a reader must know before believing a run's numbers.

Probabilities off the scale, a class that is never said, a kappa that cannot vary, intervals that stand on a handful of
patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING
from heads.protocol.probe_result import ProbeResult
from heads.protocol.splits import seen_units
from heads.runs.severity_document import ORACLE as ORACLE_POINTS
from heads.runs.severity_document import points_of
from heads.scores import Floats
from heads.statistics.bootstrap import Estimate
from heads.statistics.evaluation import decide
from heads.statistics.metric_functions import kappa
from heads.statistics.thresholds import HALF

# An interval from redrawing fewer patients of a class than this is a guess about others.
FEW_PATIENTS = 10
SLOPE = "calibration slope"
NEVER_SAID = "class never said"
CONSTANT = "constant kappa"
FEW = "few patients of a class"
ORACLE = "oracle coordinates"
TRAINED = "trained patients"
_ORACLE_TEXT = (
    "oracle coordinates: crops are cut around points that readers drew, which no new study has; a run on localised "
    "points says what to expect of one"
)
# Warnings of one kind that are written out where a task has many targets.
_WRITTEN_OUT = 3


def warnings_of(result: ProbeResult) -> list[dict[str, Any]]:
    """Return the warnings as ``run.json`` keeps them.

    Returns
    -------
    list of dict
        ``kind`` (`TRAINED`, `ORACLE`, `SLOPE`, `NEVER_SAID`, `CONSTANT` or `FEW`), ``target`` (``""`` of all) and
        ``text``; by kind, then by target.
    """
    found: list[dict[str, Any]] = []
    evaluated, classes = result.evaluated, result.view.task.classes
    for index, target in enumerate(result.view.task.targets):
        labelled = evaluated.y[:, index] != MISSING
        y, probabilities = evaluated.y[labelled, index], evaluated.probabilities[labelled, index]
        estimates = result.evaluation.by_target[target]
        rules = result.fitted.thresholds[index] if result.fitted.thresholds else {}
        never = _never_said(y, probabilities, classes, rules)
        lines = {
            SLOPE: _slope(estimates.get("calibration_slope")),
            NEVER_SAID: never,
            CONSTANT: None if never else _constant(estimates.get("kappa")),
            FEW: _few(y, evaluated.patients[labelled], classes),
        }
        found += [{"kind": kind, "target": target, "text": text} for kind, text in lines.items() if text]
    if (of_trained := _trained(result)) is not None:
        found.append({"kind": TRAINED, "target": "", "text": of_trained})
    if points_of(result.view.identity.to_json()) == ORACLE_POINTS:
        found.append({"kind": ORACLE, "target": "", "text": _ORACLE_TEXT})
    kinds = (TRAINED, ORACLE, SLOPE, NEVER_SAID, CONSTANT, FEW)
    return sorted(found, key=lambda entry: kinds.index(entry["kind"]))


def _trained(result: ProbeResult) -> str | None:
    """Return what is wrong with a probe that was asked to count patients whom the encoder has seen before."""
    view = result.view
    seen = seen_units(view, np.isin(view.unit_ids, result.evaluated.unit_ids))
    if not seen.any():
        return None
    return (
        f"{int(seen.sum()):,} of {len(result.evaluated.unit_ids):,} evaluated units are of patients on whom the "
        "encoder was fine-tuned: every number here is too good"
    )


def warnings_in_words(document: Mapping[str, Any]) -> list[str]:
    """Return the warnings of a run's document as lines; of many targets the first of a kind, and the others' names."""
    several = len(document["task"]["targets"]) > 1
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for entry in document["warnings"]:
        by_kind.setdefault(entry["kind"], []).append(entry)
    lines = []
    for kind, entries in by_kind.items():
        lines += [
            f"{entry['target']}: {entry['text']}" if several and entry["target"] else str(entry["text"])
            for entry in entries[:_WRITTEN_OUT]
        ]
        if others := [str(entry["target"]) for entry in entries[_WRITTEN_OUT:]]:
            lines.append(f"{kind}, {len(others)} more targets: {', '.join(others)}")
    return lines


def _slope(slope: Estimate | None) -> str | None:
    if slope is None or not (slope.low > 1 or slope.high < 1):
        return None
    meaning = "too near to the prevalence" if slope.low > 1 else "too extreme"
    if slope.value <= 0:
        meaning = "larger where the class is rarer, or say nothing of it"
    return (
        f"calibration slope {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}], where 1 is right: probabilities are "
        f"{meaning}"
    )


def _never_said(
    y: npt.NDArray[np.int64], probabilities: Floats, classes: Sequence[str], rules: Mapping[str, float]
) -> str | None:
    """Name the classes that units have and that no decision says, and the threshold that would say them."""
    if len(y) > 1 and not np.ptp(probabilities, axis=0).any():
        return (
            f"every unit has the same probability of {classes[-1]!r}, {probabilities[0, -1]:.3f}: the calibrator found "
            "no signal in the scores, so nothing can be ranked or told apart"
        )
    decisions = decide(probabilities)
    absent = [k for k in range(len(classes)) if (y == k).any() and not (decisions == k).any()]
    if not absent:
        return None
    if len(classes) > 2:
        listed = ", ".join(
            f"{classes[k]!r} ({int((y == k).sum())} of {len(y)} units have it; a threshold of its own of "
            f"{probabilities[:, k].max():.3f} or less would, its largest probability)"
            for k in absent
        )
        constant = ", and kappa is 0 whoever is drawn" if len(np.unique(decisions)) == 1 else ""
        return f"never the likeliest class: {listed}{constant}"
    counted = f"{classes[absent[0]]!r} ({int((y == absent[0]).sum())} of {len(y)} are)"
    said = f"at {HALF} no unit is called {counted}, and kappa is 0 whoever is drawn"
    threshold = rules.get("youden")
    if threshold is not None and len(np.unique(decide(probabilities, threshold))) == 2:
        value = float(kappa(y, decide(probabilities, threshold), n_classes=2)[0])
        return f"{said}; at {threshold:.3f} (youden, from out-of-fold probabilities) kappa is {value:.2f}"
    positive = probabilities[:, 1]
    if absent == [1]:
        return f"{said}; a threshold of {positive.max():.3f} or less would (the largest probability)"
    return (
        f"{said}; a threshold above {positive.min():.3f} would (the smallest probability of {classes[1]!r})"
    )


def _constant(estimate: Estimate | None) -> str | None:
    if estimate is None or np.isnan(estimate.value) or not np.isnan(estimate.low):
        return None
    return f"kappa is {estimate.value:.3f} whoever is drawn, so no interval can be stated"


def _few(y: npt.NDArray[np.int64], patients: npt.NDArray[np.str_], classes: Sequence[str]) -> str | None:
    counts = {name: len(np.unique(patients[y == k])) for k, name in enumerate(classes)}
    few = [f"{count} of {name!r}" for name, count in counts.items() if count < FEW_PATIENTS]
    return (
        f"intervals stand on fewer than {FEW_PATIENTS} patients of a class: {', '.join(few)}" if few else None
    )
