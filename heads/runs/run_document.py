"""The content of ``run.json``: how a probe was run, what it chose, what was measured, and with which versions."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from embedstore.view import MISSING, UNKNOWN_PATIENT
from heads.base import HeadNeeds
from heads.protocol.fitting import Fitted
from heads.protocol.probe_result import Evaluation, ProbeResult
from heads.registry import head_package
from heads.runs.class_counts import classes_of_run
from heads.runs.run_tables import class_shares
from heads.statistics.bootstrap import LEVEL, estimates_to_json
from heads.statistics.metric_functions import ECE_BINS
from heads.statistics.metrics import UNITS_PER_ECE_BIN, ece_bins

FORMAT_VERSION = 4
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "pyarrow", "safetensors")


def run_document(result: ProbeResult) -> dict[str, Any]:
    """Return ``run.json`` without the digests of the other files, as plain JSON values."""
    view, settings = result.view, result.settings
    return {
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": view.identity.to_json(),
        "identity_sha256": view.identity.sha256,
        "task": view.task.to_json(),
        "settings": settings.to_json()
        | {"interval": LEVEL, "ece_bins_at_most": ECE_BINS, "units_per_ece_bin": UNITS_PER_ECE_BIN},
        "sources": [source.to_json() for source in view.sources],
        "inputs": _inputs(result.fitted),
        "heads": [_head(result, index, target) for index, target in enumerate(view.task.targets)],
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
            "head": result.fitted.predictor.heads[0].needs.holds_vectors,
        },
        **({"learning_curve": result.learning_curve.to_json()} if result.learning_curve else {}),
        "counts": {
            "units_of_unknown_patient": int(np.char.startswith(view.patients, UNKNOWN_PATIENT).sum()),
            "units_fitted": len(result.out_of_fold.unit_ids),
            "units_evaluated": len(result.evaluated.unit_ids),
            "patients_fitted": len(np.unique(result.out_of_fold.patients)),
            "patients_evaluated": len(np.unique(result.evaluated.patients)),
        },
        "excluded": dict(result.excluded),
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
        "versions": _versions(settings.options.head, result.fitted.predictor.heads[0].needs),
    }


def _head(result: ProbeResult, index: int, target: str) -> dict[str, Any]:
    fitted = result.fitted
    head = fitted.predictor.heads[index]
    return {
        "target": target,
        "point": dict(fitted.points[index]),
        "params": head.get_params(),
        "training_weights": list(fitted.predictor.training_weights[index]),
        "out_of_fold_log_loss": float(fitted.losses[:, index].min()),
        "calibration": fitted.calibrations[index].calibrator.kind,
        "calibration_log_loss": dict(fitted.calibrations[index].losses),
        "thresholds": dict(fitted.thresholds[index]) if fitted.thresholds else {},
        "prevalence": class_shares(result.out_of_fold.y[:, index], len(result.view.task.classes)),
        "conformal": result.conformal[index].to_json(),
        "converged": head.converged_,
    }


def _inputs(fitted: Fitted) -> dict[str, Any]:
    """Return what the heads get, what else was tried (nothing where there was no choice), and how columns are coded."""
    blocks = fitted.predictor.blocks
    return {
        "chosen": fitted.inputs.to_json(),
        "tried": [trial.to_json() for trial in fitted.trials] if len(fitted.trials) > 1 else [],
        "blocks": None if blocks is None else blocks.to_json(),
    }


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metrics": estimates_to_json(evaluation.overall),
        "before_calibration": estimates_to_json(evaluation.before_calibration),
        "by_target": {name: estimates_to_json(of) for name, of in evaluation.by_target.items()},
        "by_subgroup": {
            column: {cell: estimates_to_json(of) for cell, of in cells.items()}
            for column, cells in evaluation.by_subgroup.items()
        },
        "at_threshold": {rule: estimates_to_json(of) for rule, of in evaluation.at_threshold.items()},
        "conformal_sets": {name: estimates_to_json(of) for name, of in evaluation.sets.items()},
        "decision_curve": {name: curve.to_json() for name, curve in evaluation.decision_curves.items()},
        "abstention": {
            name: [entry.to_json() for entry in curve] for name, curve in evaluation.abstention.items()
        },
    }


def _versions(head: str, needs: HeadNeeds) -> dict[str, str]:
    """Return the versions of Python, of the libraries that took part, and of the package that has the head."""
    package = head_package(head)
    named = (*_LIBRARIES, *needs.libraries, *([package] if package else []))
    found = {"python": platform.python_version()}
    for name in named:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # A library can be there under another name (from conda, say); a run is not lost for that.
            found[name] = "unknown"
    return found
