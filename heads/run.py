"""The run folder: everything needed to use a head, and to doubt it. No pickle.

```
run.json             format version, identity, task, settings, heads, metrics, versions, digests of the others
head.safetensors     one head per target: <index>.<array>
calibrator.json      one calibrator per target
predictions.parquet  every unit out of fold and judged
report.html          written by `heads.report`; can be made again from the others, so it has no digest
```
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from safetensors import SafetensorError

from embedstore.errors import DataError
from embedstore.files import canonical_json, make_folder_durable, sha256_bytes, write_durable
from embedstore.identity import Identity, identity_from_json
from embedstore.metrics import ECE_BINS
from heads.base import Floats, head_class
from heads.bootstrap import LEVEL, estimates_to_json
from heads.calibration import calibrator_from_json
from heads.predictor import Predictor
from heads.result import Predictions, ProbeResult

FORMAT_VERSION = 1
RUN_FILE = "run.json"
HEAD_FILE = "head.safetensors"
CALIBRATOR_FILE = "calibrator.json"
PREDICTIONS_FILE = "predictions.parquet"
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "pyarrow", "safetensors")


@dataclass(frozen=True)
class Run:
    """A saved probe.

    Parameters
    ----------
    folder
        Where it lies.
    document
        The content of ``run.json``.
    identity
        What vectors it may be used on.
    predictor
        Heads and calibrators.
    predictions
        Arrow table: unit_id, patient_id, split (``oof`` or ``test``), fold, target, label, score (of several
        classes ``score_<class>``), prob_<class>.
    """

    folder: Path
    document: Mapping[str, Any]
    identity: Identity
    predictor: Predictor
    predictions: pa.Table

    @property
    def run_id(self) -> str:
        """First 12 digits of the digest of ``run.json``."""
        return sha256_bytes(canonical_json(self.document))[:12]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of probabilities."""
        return tuple(self.document["task"]["classes"])

    @property
    def targets(self) -> tuple[str, ...]:
        """Target names, in the order of probabilities."""
        return tuple(self.document["task"]["targets"])

    def require_identity(self, identity: Identity) -> None:
        """Refuse vectors of another identity; raises `IdentityMismatch` with the fields that differ."""
        self.identity.require_same(identity, holder=f"run {self.folder}")

    def predict(
        self, X: npt.NDArray[np.float32], unit_of_image: npt.NDArray[np.int64], *, n_units: int | None = None
    ) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        X
            (n_images, dim) float32 vectors of this run's identity (`require_identity`), finite.
        unit_of_image
            (n_images,) int64: the unit (study or image) of each vector, from 0 and without gaps.
        n_units
            Number of units; by default the largest of `unit_of_image` and one.

        Returns
        -------
        ndarray
            (n_units, targets, n_classes) float64. A unit's bits depend on its own vectors only.

        Raises
        ------
        DataError
            If vectors have another length.
        UsageError
            If a unit has no vector or a number is NaN.
        """
        dim = self.identity.dim
        if X.ndim != 2 or X.shape[1] != dim:
            raise DataError(f"run {self.folder} wants vectors of shape (n, {dim}); found {X.shape}")
        count = int(unit_of_image.max(initial=-1)) + 1 if n_units is None else n_units
        scores = self.predictor.scores(X, unit_of_image, n_units=count)
        return self.predictor.probabilities(scores)


def save_run(folder: Path, result: ProbeResult) -> Run:
    """Write a probe's result and return it as a run; a run already there is replaced.

    ``run.json`` goes first when an old run is replaced and comes last: a folder without it is no run.
    """
    make_folder_durable(folder)
    (folder / RUN_FILE).unlink(missing_ok=True)
    predictions = predictions_table(result)
    files = {
        HEAD_FILE: _head_bytes(result),
        CALIBRATOR_FILE: canonical_json(
            {"calibrators": [calibrator.to_json() for calibrator in result.fitted.predictor.calibrators]}
        ),
        PREDICTIONS_FILE: _parquet_bytes(predictions),
    }
    for name, payload in files.items():
        write_durable(folder / name, payload, label=f"run-{name.split('.')[0]}")
    document = run_document(result) | {"files": {name: sha256_bytes(files[name]) for name in sorted(files)}}
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_durable(folder / RUN_FILE, text.encode(), label="run")
    return Run(folder, json.loads(text), result.view.identity, result.fitted.predictor, predictions)


def load_run(folder: Path) -> Run:
    """Read a run and check that nothing was changed.

    Raises
    ------
    DataError
        If the folder is no run, of another format version, or a file is missing or was edited.
    """
    document = _read_document(folder / RUN_FILE)
    payloads = {name: _read_checked(folder / name, digest) for name, digest in document["files"].items()}
    identity = identity_from_json(document["identity"], source=str(folder / RUN_FILE))
    if identity.sha256 != document["identity_sha256"]:
        raise DataError(f"{folder / RUN_FILE}: identity was edited: its digest is {identity.sha256[:12]}…")
    try:
        arrays = safetensors.numpy.load(payloads[HEAD_FILE])
        head = head_class(document["settings"]["head"])
        heads = [
            head.from_arrays(_of_index(arrays, index), entry["params"])
            for index, entry in enumerate(document["heads"])
        ]
        calibrators = [
            calibrator_from_json(entry, source=str(folder / CALIBRATOR_FILE))
            for entry in json.loads(payloads[CALIBRATOR_FILE])["calibrators"]
        ]
        predictor = Predictor(
            heads,
            calibrators,
            document["settings"]["pooling"],
            tuple(tuple(entry["training_weights"]) for entry in document["heads"]),
        )
        predictions = pq.read_table(io.BytesIO(payloads[PREDICTIONS_FILE]))
    except (KeyError, TypeError, SafetensorError, pa.ArrowInvalid) as error:
        raise DataError(f"run {folder} cannot be read: {error!r}; probe again") from error
    return Run(folder, document, identity, predictor, predictions)


def run_document(result: ProbeResult) -> dict[str, Any]:
    """Return ``run.json`` without the digests of the other files, as plain JSON values."""
    view, settings, fitted, evaluation = result.view, result.settings, result.fitted, result.evaluation
    heads = [
        {
            "target": target,
            "point": dict(fitted.points[index]),
            "params": fitted.predictor.heads[index].get_params(),
            "training_weights": list(fitted.predictor.training_weights[index]),
            "out_of_fold_log_loss": float(fitted.losses[:, index].min()),
            "calibration": fitted.calibrations[index].calibrator.kind,
            "calibration_log_loss": dict(fitted.calibrations[index].losses),
            "thresholds": dict(fitted.thresholds[index]) if fitted.thresholds else {},
        }
        for index, target in enumerate(view.task.targets)
    ]
    return {
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": view.identity.to_json(),
        "identity_sha256": view.identity.sha256,
        "task": view.task.to_json(),
        "settings": {name: _plain(getattr(settings, name)) for name in settings.__dataclass_fields__}
        | {"interval": LEVEL, "ece_bins": ECE_BINS},
        "heads": heads,
        "metrics": estimates_to_json(evaluation.overall),
        "before_calibration": estimates_to_json(evaluation.before_calibration),
        "by_target": {name: estimates_to_json(of) for name, of in evaluation.by_target.items()},
        "by_subgroup": {
            column: {cell: estimates_to_json(of) for cell, of in cells.items()}
            for column, cells in evaluation.by_subgroup.items()
        },
        "at_threshold": {rule: estimates_to_json(of) for rule, of in evaluation.at_threshold.items()},
        "counts": {
            "units_fitted": len(result.out_of_fold.unit_ids),
            "units_judged": len(result.judged.unit_ids),
            "patients_fitted": len(np.unique(result.out_of_fold.patients)),
            "patients_judged": len(np.unique(result.judged.patients)),
        },
        "excluded": dict(result.excluded),
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
    }


def predictions_table(result: ProbeResult) -> pa.Table:
    """Return every unit and target, out of fold (``oof``) and judged (``test``), as an Arrow table."""
    task = result.view.task
    tables = [
        _table(part, split, target, index, task.classes)
        for split, part in (("oof", result.out_of_fold), ("test", result.judged))
        for index, target in enumerate(task.targets)
    ]
    return pa.concat_tables(tables).combine_chunks()


def _table(part: Predictions, split: str, target: str, index: int, classes: tuple[str, ...]) -> pa.Table:
    n = len(part.unit_ids)
    names = np.array([*classes, None], object)
    score_names = ["score"] if len(classes) == 2 else [f"score_{name}" for name in classes]
    columns: dict[str, Any] = {
        "unit_id": pa.array(part.unit_ids.tolist(), pa.string()),
        "patient_id": pa.array(part.patients.tolist(), pa.string()),
        "split": pa.array([split] * n, pa.string()),
        "fold": pa.array(part.fold, pa.int64(), mask=part.fold < 0),
        "target": pa.array([target] * n, pa.string()),
        "label": pa.array(names[part.y[:, index]].tolist(), pa.string()),
    }
    columns |= {name: pa.array(part.scores[:, index, k]) for k, name in enumerate(score_names)}
    unknown = np.isnan(part.probabilities[:, index, 0])
    columns |= {
        f"prob_{name}": pa.array(part.probabilities[:, index, k], mask=unknown)
        for k, name in enumerate(classes)
    }
    return pa.table(columns)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _head_bytes(result: ProbeResult) -> bytes:
    arrays = {
        f"{index}.{name}": np.ascontiguousarray(array)
        for index, head in enumerate(result.fitted.predictor.heads)
        for name, array in head.to_arrays().items()
    }
    return bytes(safetensors.numpy.save(arrays))


def _of_index(arrays: Mapping[str, npt.NDArray[Any]], index: int) -> dict[str, npt.NDArray[Any]]:
    prefix = f"{index}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent} is not a run: it has no {RUN_FILE}; `embed probe` makes one"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = document.get("format_version") if isinstance(document, dict) else None
    if found != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version must be {FORMAT_VERSION}, found {found!r}; probe again, or use the release "
            "that wrote it"
        )
    needed = {"files", "identity", "identity_sha256", "settings", "heads", "task", "metrics"}
    missing = needed - set(document)
    lacking = {HEAD_FILE, CALIBRATOR_FILE, PREDICTIONS_FILE} - set(document.get("files", ()))
    if missing or lacking:
        raise DataError(f"{path}: lacks {sorted(missing | lacking)}; probe again")
    return dict(document)


def _read_checked(path: Path, digest: str) -> bytes:
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"run {path.parent} is not whole: {path.name} cannot be read ({error}); probe again"
        ) from error
    if sha256_bytes(payload) != digest:
        raise DataError(
            f"run {path.parent}: {path.name} was changed after the run: its digest is "
            f"{sha256_bytes(payload)[:12]}…, {RUN_FILE} says {digest[:12]}…; probe again"
        )
    return payload
