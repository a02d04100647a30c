"""The content of ``run.json``: how a probe was run, what it chose, what was measured, and with which versions."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.view import MISSING, UNKNOWN_PATIENT
from heads.protocol.decided_by import id_of, versions_of
from heads.protocol.fitting import Fitted
from heads.protocol.probe_result import Evaluation, ProbeResult
from heads.runs.class_counts import classes_of_run
from heads.runs.run_tables import class_shares
from heads.runs.run_warnings import warnings_of
from heads.runs.saved_predictor import head_values, holds_vectors
from heads.runs.severity_document import severity_document
from heads.statistics.bootstrap import LEVEL, estimates_to_json
from heads.statistics.metric_functions import ECE_BINS
from heads.statistics.metrics import UNITS_PER_ECE_BIN, ece_bins, left_out_metrics

FORMAT_VERSION = 6
# The formats that are read: without ensembles (`members` of a head), version 5 is as this one; version 4 also lacks
# `run_id`, and has in itself what is in `timing.json` now.
READ_VERSIONS = (4, 5, FORMAT_VERSION)
_LIBRARIES = ("embedstore", "numpy", "scipy", "scikit-learn", "torch", "pyarrow", "safetensors")


def run_document(result: ProbeResult) -> dict[str, Any]:
    """Return ``run.json`` without the digests of the other files, as plain JSON values."""
    view, settings = result.view, result.settings
    return {
        "format_version": FORMAT_VERSION,
        "run_id": id_of(result.decided_by),
        "decided_by": dict(result.decided_by),
        "identity": view.identity.to_json(),
        "identity_sha256": view.identity.sha256,
        "task": view.task.to_json(),
        "settings": settings.to_json()
        | {"interval": LEVEL, "ece_bins_at_most": ECE_BINS, "units_per_ece_bin": UNITS_PER_ECE_BIN},
        "sources": [source.to_json() for source in view.sources],
        "inputs": _inputs(result.fitted),
        "images": _images(result),
        "heads": [_head(result, index, target) for index, target in enumerate(view.task.targets)],
        **({"parts": list(result.parts)} if result.parts else {}),
        **_measured(result.evaluation),
        "ece_bins": {
            target: ece_bins(int((result.evaluated.y[:, index] != MISSING).sum()))
            for index, target in enumerate(view.task.targets)
        },
        "classes": classes_of_run(result),
        "outliers": result.outliers
        and {
            "neighbors": result.outliers.neighbors,
            "bank_images": len(result.outliers.bank),
            "units": len(result.out_of_fold.unit_ids),
        },
        # Whoever gets the folder gets these with it.
        "patient_vectors": {
            "bank": len(result.outliers.bank) if result.outliers else 0,
            "head": holds_vectors(result.fitted.predictor),
        },
        **({"learning_curve": result.learning_curve.to_json()} if result.learning_curve else {}),
        "counts": {
            "units_of_unknown_patient": int(np.char.startswith(view.patients, UNKNOWN_PATIENT).sum()),
            "units_fitted": len(result.out_of_fold.unit_ids),
            "units_evaluated": len(result.evaluated.unit_ids),
            "patients_fitted": len(np.unique(result.out_of_fold.patients)),
            "patients_evaluated": len(np.unique(result.evaluated.patients)),
        },
        **severity_document(result),
        "excluded": dict(result.excluded),
        "left_out_metrics": left_out_metrics(len(view.task.classes), ordered=view.task.ordered),
        "left_out_targets": {target: entry.to_json() for target, entry in result.left_out.items()},
        "warnings": warnings_of(result),
        "versions": {
            "python": platform.python_version(),
            **versions_of([part["head"] for part in result.parts] or [settings.options.head], _LIBRARIES),
        },
    }


def timing(result: ProbeResult) -> dict[str, Any]:
    """Return ``timing.json``: when the run was made and how long each step took, which decide nothing."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
    }


def store_dtype(document: Mapping[str, Any]) -> str:
    """Return what vectors are rounded to before a head sees them; ``float16`` in runs from before it was kept."""
    return str(document.get("images", {}).get("store_dtype", "float16"))


def learned_kinds(document: Mapping[str, Any]) -> Mapping[str, Mapping[str, int]]:
    """Return column (``modality``, ``body_part``) -> kind -> images learned from; empty where none is known."""
    kinds: Mapping[str, Mapping[str, int]] = document.get("images", {}).get("kinds", {})
    return kinds


def learned_mask(result: ProbeResult) -> npt.NDArray[np.bool_]:
    """Return (n_images,) bool: the images that the heads learned from."""
    view = result.view
    learned = np.isin(view.unit_ids, result.out_of_fold.unit_ids)[view.unit_of_image]
    if view.image_of_target is not None:
        learned &= view.image_of_target.any(axis=1)
    return np.asarray(learned)


def _images(result: ProbeResult) -> dict[str, Any]:
    """Return what the images learned from were stored as, and column -> kind -> how many they were."""
    learned = learned_mask(result)
    kinds = {
        column: Counter(kind for kind in cells[learned].tolist() if kind)
        for column, cells in result.view.image_kinds.items()
    }
    return {
        "store_dtype": result.view.store_dtype,
        "kinds": {column: dict(sorted(counts.items())) for column, counts in kinds.items() if counts},
    }


def _head(result: ProbeResult, index: int, target: str) -> dict[str, Any]:
    fitted = result.fitted
    return {
        "target": target,
        "point": dict(fitted.points[index]),
        **head_values(fitted.predictor, index),
        "reliability": fitted.ensemble.reliability[index] if fitted.ensemble else None,
        "out_of_fold_log_loss": float(fitted.losses[:, index].min()),
        "calibration": fitted.calibrations[index].calibrator.kind,
        "calibration_log_loss": dict(fitted.calibrations[index].losses),
        "thresholds": dict(fitted.thresholds[index]) if fitted.thresholds else {},
        "grade_thresholds": {
            grade: dict(rules)
            for of_target in result.evaluation.grade_thresholds[index : index + 1]
            for grade, rules in of_target.items()
        },
        "prevalence": class_shares(result.out_of_fold.y[:, index], len(result.view.task.classes)),
        "conformal": result.conformal[index].to_json(),
    }


def _inputs(fitted: Fitted) -> dict[str, Any]:
    """Return what the heads get, what else was tried (nothing where there was no choice), and how columns are coded."""
    blocks, bins = fitted.predictor.blocks, fitted.predictor.bins
    return {
        "chosen": fitted.inputs.to_json(),
        "tried": [trial.to_json() for trial in fitted.trials] if len(fitted.trials) > 1 else [],
        "blocks": None if blocks is None else blocks.to_json(),
        **({} if bins is None else {"bins": bins.to_json()}),
    }


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metrics": estimates_to_json(evaluation.overall),
        "without_image": estimates_to_json(evaluation.without_image),
        "before_calibration": estimates_to_json(evaluation.before_calibration),
        "by_target": {name: estimates_to_json(of) for name, of in evaluation.by_target.items()},
        "by_subgroup": {
            column: {cell: estimates_to_json(of) for cell, of in cells.items()}
            for column, cells in evaluation.by_subgroup.items()
        },
        "at_threshold": {rule: estimates_to_json(of) for rule, of in evaluation.at_threshold.items()},
        **(
            {
                "at_grades": {
                    grade: {rule: estimates_to_json(of) for rule, of in rules.items()}
                    for grade, rules in evaluation.at_grades.items()
                }
            }
            if evaluation.at_grades
            else {}
        ),
        "conformal_sets": {name: estimates_to_json(of) for name, of in evaluation.sets.items()},
        "decision_curve": {name: curve.to_json() for name, curve in evaluation.decision_curves.items()},
        "abstention": {
            name: [entry.to_json() for entry in curve] for name, curve in evaluation.abstention.items()
        },
    }
