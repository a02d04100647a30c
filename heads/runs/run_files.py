"""The run folder: everything needed to use a head, and to doubt it. No pickle.

```
run.json             format version, identity, task, settings, heads, metrics, versions, digests of all
timing.json          when the run was made and how long each step took; decides nothing, so it has no digest
head.safetensors     a head or an ensemble per target; shared arrays are there once (`heads.runs.shared_arrays`)
calibrator.json      one calibrator per target
outliers.safetensors distances of the units learned from (`heads.statistics.outliers`)
learned.safetensors  digests of the images learned from
evidence.safetensors what else was said out of fold, from which a blend learns; not of every run
predictions.parquet  every unit out of fold and of the evaluation set (`heads.protocol.predictions`)
units.parquet        what the units are, whatever encoder saw them (`heads.runs.unit_table`)
label_noise.parquet  labels that deserve a second look (`heads.statistics.label_noise`)
report.html          written by `heads.reporting.page`; can be made again from the others, so it has no digest
escalation.json      what ``embed escalate`` said of this run; about it and no part of it, so it has no digest
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors.numpy
from safetensors import SafetensorError

from embedstore.errors import Advice, DataError, UsageError, did_you_mean
from embedstore.files import (
    StrPath,
    canonical_json,
    content_sha256,
    make_folder_durable,
    parquet_bytes,
    sealed,
    sha256_bytes,
    table_of_parquet,
    write_durable,
)
from embedstore.identity import identity_from_json
from heads.protocol.predictions import Evidence
from heads.protocol.probe_result import ProbeResult
from heads.runs.patient_vectors import OUTLIERS_FILE, left_out_by_choice
from heads.runs.run import Run
from heads.runs.run_document import READ_VERSIONS, learned_mask, run_document, timing
from heads.runs.run_tables import label_noise_table, predictions_table
from heads.runs.saved_predictor import CALIBRATOR_FILE, HEAD_FILE, load_predictor, predictor_files
from heads.runs.unit_table import unit_table
from heads.statistics.conformal import conformal_sets_from_json
from heads.statistics.outliers import Outliers

RUN_FILE = "run.json"
TIMING_FILE = "timing.json"
PREDICTIONS_FILE = "predictions.parquet"
LEARNED_FILE = "learned.safetensors"
LABEL_NOISE_FILE = "label_noise.parquet"
UNITS_FILE = "units.parquet"
ESCALATION_FILE = "escalation.json"
EVIDENCE_FILE = "evidence.safetensors"  # only of an outer cross-validation or an ensemble
FILES = (
    HEAD_FILE,
    CALIBRATOR_FILE,
    PREDICTIONS_FILE,
    OUTLIERS_FILE,
    LEARNED_FILE,
    LABEL_NOISE_FILE,
    UNITS_FILE,
)


def save_run(folder: StrPath, result: ProbeResult) -> Run:
    """Write a probe's result as a run, in place of one already there; UsageError if it is no `ProbeResult`.

    ``run.json`` of a run already there goes first, and the new one comes last: a folder without it is no run.

    Examples
    --------
    >>> heads.save_run("runs/again", result).targets
    ('abnormal',)
    """
    if not isinstance(result, ProbeResult):
        raise UsageError(
            f"result must be a ProbeResult, as heads.probe returns; found {type(result).__name__}"
        )
    folder = Path(folder)
    make_folder_durable(folder)
    # The latter may not be written anew, and what was said of the old run does not hold for this one.
    for name in (RUN_FILE, OUTLIERS_FILE, EVIDENCE_FILE, ESCALATION_FILE):
        (folder / name).unlink(missing_ok=True)
    predictions = predictions_table(result)
    label_noise = label_noise_table(result)
    units = unit_table(result.view)
    learned_images = _learned_images(result)
    files = {
        **predictor_files(result.fitted.predictor),
        PREDICTIONS_FILE: parquet_bytes(predictions),
        LEARNED_FILE: bytes(safetensors.numpy.save({"content_sha256": learned_images})),
        LABEL_NOISE_FILE: parquet_bytes(label_noise),
        UNITS_FILE: parquet_bytes(units),
    }
    if result.outliers is not None:
        files[OUTLIERS_FILE] = bytes(safetensors.numpy.save(result.outliers.to_arrays()))
    if evidence := result.evidence.to_arrays():
        files[EVIDENCE_FILE] = bytes(safetensors.numpy.save(evidence))
    for name, payload in files.items():
        write_durable(folder / name, payload, label=f"run-{name.split('.')[0]}")
    seconds = timing(result)
    write_durable(folder / TIMING_FILE, _as_text(seconds), label="run-timing")
    document = run_document(result) | {"files": {name: sha256_bytes(files[name]) for name in sorted(files)}}
    # As it will be read: keys that are numbers become text, and change places in the digest.
    document = sealed(json.loads(canonical_json(document)))
    write_durable(folder / RUN_FILE, _as_text(document), label="run")
    return Run(
        folder=folder,
        document=document,
        identity=result.view.identity,
        predictor=result.fitted.predictor,
        conformal=result.conformal,
        outliers=result.outliers,
        learned_images=learned_images,
        predictions=predictions,
        label_noise=label_noise,
        units=units,
        timing=seconds,
        evidence=result.evidence,
    )


def load_run(folder: StrPath) -> Run:
    """Read a run and check that nothing was changed.

    Raises
    ------
    DataError
        If the folder is no run, of another format version, or a file is missing or was edited.

    Examples
    --------
    >>> run = heads.load_run("runs/abnormal-logistic")
    >>> run.targets, run.classes
    (('abnormal',), ('normal', 'abnormal'))
    """
    folder = Path(folder)
    document = read_document(folder)
    payloads = {name: _read_checked(folder / name, digest) for name, digest in document["files"].items()}
    identity = identity_from_json(document["identity"], source=str(folder / RUN_FILE))
    try:
        predictor = load_predictor(document, payloads, folder=folder)
        conformal = tuple(
            conformal_sets_from_json(entry["conformal"], source=str(folder / RUN_FILE))
            for entry in document["heads"]
        )
        bank = payloads.get(OUTLIERS_FILE)
        outliers = None if bank is None else Outliers.from_arrays(safetensors.numpy.load(bank))
        learned_images = safetensors.numpy.load(payloads[LEARNED_FILE])["content_sha256"]
        said = payloads.get(EVIDENCE_FILE)
        evidence = Evidence.from_arrays({} if said is None else safetensors.numpy.load(said))
        predictions = table_of_parquet(payloads[PREDICTIONS_FILE])
        label_noise = table_of_parquet(payloads[LABEL_NOISE_FILE])
        units = table_of_parquet(payloads[UNITS_FILE]) if UNITS_FILE in payloads else None
    except (KeyError, IndexError, TypeError, SafetensorError, pa.ArrowInvalid) as error:
        raise DataError(f"run {folder} cannot be read: {error!r}; probe again") from error
    return Run(
        folder=folder,
        document=document,
        identity=identity,
        predictor=predictor,
        conformal=conformal,
        outliers=outliers,
        learned_images=learned_images,
        predictions=predictions,
        label_noise=label_noise,
        units=units,
        timing=_timing(folder, document),
        evidence=evidence,
    )


def _learned_images(result: ProbeResult) -> npt.NDArray[np.uint8]:
    content = result.view.content_sha256[learned_mask(result)]
    return np.ascontiguousarray(np.unique(content, axis=0))


def _as_text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _timing(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return when and how fast a run was made; ``{}`` where the file is gone: nothing rests on it."""
    if "seconds" in document:  # of format version 4
        return {"created": document["created"], "seconds": document["seconds"]}
    try:
        found = json.loads((folder / TIMING_FILE).read_bytes())
        return {"created": str(found["created"]), "seconds": dict(found["seconds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_document(folder: Path) -> dict[str, Any]:
    """Return the content of ``run.json``, checked against its own digest; the other files are not read.

    Raises
    ------
    DataError
        If the folder is no run, of another format version, or ``run.json`` was edited.
    """
    path = folder / RUN_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        near = did_you_mean(folder.name, (run.parent.name for run in folder.parent.glob(f"*/{RUN_FILE}")))
        raise DataError(
            f"{path.parent} is not a run: it has no {RUN_FILE}{near}", advice=Advice.PROBE
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = document.get("format_version") if isinstance(document, dict) else None
    if found not in READ_VERSIONS:
        raise DataError(
            f"{path}: format version must be one of {', '.join(map(str, READ_VERSIONS))}, found {found!r}; probe "
            "again, or use the release that wrote it"
        )
    needed = {"files", "identity", "sha256", "settings", "sources", "inputs", "heads", "task", "metrics"}
    needed |= {"ece_bins", "classes"}
    missing = needed - set(document)
    # Runs from before it was kept are read; they are compared by names alone.
    lacking = set(FILES) - {UNITS_FILE} - set(document.get("files", ())) - left_out_by_choice(document)
    if missing or lacking:
        raise DataError(f"{path}: lacks {sorted(missing | lacking)}; probe again")
    digest = content_sha256(document)
    if digest != document["sha256"]:
        raise DataError(
            f"{path} was changed after the run: its content has sha256 {digest[:12]}…, it says "
            f"{str(document['sha256'])[:12]}…; probe again"
        )
    # What version 4 did not keep.
    return {"left_out_targets": {}, "warnings": [], "without_image": {}, **document}


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
