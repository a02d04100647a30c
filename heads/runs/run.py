"""The run folder: everything needed to use a head, and to doubt it. No pickle.

```
run.json             format version, identity, task, settings, heads, metrics, versions, digests of all
head.safetensors     one head per target; an array that several share is there once (`heads.runs.shared_arrays`)
calibrator.json      one calibrator per target
outliers.safetensors distances of the units learned from, with vectors of patients (`heads.statistics.outliers`)
learned.safetensors  digests of the images learned from
predictions.parquet  every unit out of fold and of the evaluation set (`heads.protocol.predictions`)
label_noise.parquet  labels that deserve a second look (`heads.statistics.label_noise`)
report.html          written by `heads.reporting.page`; can be made again from the others, so it has no digest
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError
from safetensors.numpy import load, save

from embedstore.brief import Brief
from embedstore.errors import Advice, DataError, UsageError
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
from embedstore.identity import Identity, identity_from_json
from embedstore.task import ImageRule, image_rules_from_json
from heads.inputs.metadata import Cells, metadata_from_json
from heads.inputs.pooling import unit_numbers
from heads.protocol.predictions import EVALUATION, OUT_OF_FOLD, Predictions
from heads.protocol.predictor import Predictor
from heads.protocol.probe_result import ProbeResult
from heads.registry import head_class
from heads.runs.patient_vectors import OUTLIERS_FILE, left_out_by_choice
from heads.runs.run_document import FORMAT_VERSION, run_document
from heads.runs.run_tables import label_noise_table, predictions_table
from heads.runs.shared_arrays import arrays_from_bytes, arrays_to_bytes
from heads.scores import Floats
from heads.statistics.calibration import calibrator_from_json
from heads.statistics.conformal import ConformalSets, conformal_sets_from_json
from heads.statistics.outliers import Outliers

RUN_FILE = "run.json"
HEAD_FILE = "head.safetensors"
CALIBRATOR_FILE = "calibrator.json"
PREDICTIONS_FILE = "predictions.parquet"
LEARNED_FILE = "learned.safetensors"
LABEL_NOISE_FILE = "label_noise.parquet"
FILES = (HEAD_FILE, CALIBRATOR_FILE, PREDICTIONS_FILE, OUTLIERS_FILE, LEARNED_FILE, LABEL_NOISE_FILE)


@dataclass(frozen=True, kw_only=True, repr=False)
class Run(Brief):
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
    conformal
        Bars of the conformal sets, by target.
    outliers
        Distances of the units learned from; None in a run without a bank of vectors.
    learned_images
        (n, 32) uint8 digests of the decoded pixels of the images learned from, sorted, each once.
    predictions
        Arrow table of every unit and target (`heads.protocol.predictions.schema`); as arrays: `out_of_fold` and
        `evaluated`.
    label_noise
        Arrow table of doubtful labels (`heads.runs.run_tables.label_noise_table`).
    """

    folder: Path
    document: Mapping[str, Any]
    identity: Identity
    predictor: Predictor
    conformal: tuple[ConformalSets, ...]
    outliers: Outliers | None
    learned_images: npt.NDArray[np.uint8]
    predictions: pa.Table
    label_noise: pa.Table

    @property
    def run_id(self) -> str:
        """First 12 digits of the digest of what ``run.json`` says."""
        return str(self.document["sha256"])[:12]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of probabilities."""
        return tuple(self.document["task"]["classes"])

    @property
    def targets(self) -> tuple[str, ...]:
        """Target names, in the order of probabilities."""
        return tuple(self.document["task"]["targets"])

    @property
    def positive(self) -> str | None:
        """The class that one acts on, or None; in runs from before tasks named it, the last class is."""
        positive: str | None = self.document["task"].get("positive", self.classes[-1])
        return positive

    @property
    def image_rules(self) -> tuple[ImageRule | None, ...]:
        """Which images speak for each target, in the order of probabilities; None where all do."""
        rules = image_rules_from_json(self.document["task"].get("images_of_target", {}))
        return tuple(rules.get(target) for target in self.targets)

    @cached_property
    def evaluated(self) -> Predictions:
        """Predictions of the evaluation set, in the order of the table, which is parsed once."""
        return Predictions.from_table(
            self.predictions, EVALUATION, targets=self.targets, classes=self.classes
        )

    @cached_property
    def out_of_fold(self) -> Predictions:
        """Out-of-fold predictions of the units learned from, in the order of the table, which is parsed once."""
        return Predictions.from_table(
            self.predictions, OUT_OF_FOLD, targets=self.targets, classes=self.classes
        )

    @cached_property
    def learned_units(self) -> frozenset[str]:
        """Ids of the units learned from."""
        learned = pc.equal(self.predictions.column("role"), OUT_OF_FOLD)
        return frozenset(self.predictions.filter(learned).column("unit_id").unique().to_pylist())

    def require_identity(self, identity: Identity) -> None:
        """Refuse vectors of another identity; raises `IdentityMismatch` with the fields that differ."""
        self.identity.require_same(identity, holder=f"run {self.folder}")

    def predict(
        self,
        X: npt.ArrayLike,
        unit_of_image: npt.ArrayLike | None = None,
        *,
        n_units: int | None = None,
        metadata: Cells | None = None,
        image_of_target: npt.NDArray[np.bool_] | None = None,
    ) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        X
            (n_images, dim) vectors of this run's identity (`require_identity`), finite; read as float32.
        unit_of_image
            (n_images,) int: the unit (study or image) of each vector, from 0 and without gaps. Without it every row
            is a unit of its own.
        n_units
            Number of units; by default the largest of `unit_of_image` and one.
        metadata
            Manifest column -> (n_images,) str, with those that the run was fitted with
            (``predictor.blocks``); a value that was not seen then counts as none.
        image_of_target
            (n_images, targets) bool: which images speak for which target, by `image_rules`; needed where there
            are such rules.

        Returns
        -------
        ndarray
            (n_units, targets, n_classes) float64; NaN where a unit has no image for a target. A unit's bits depend on
            its own vectors and metadata only.

        Raises
        ------
        DataError
            If vectors have another length.
        UsageError
            If units are no whole numbers, lack vectors, a number is NaN, or metadata or `image_of_target` is missing.

        Examples
        --------
        >>> run.predict(store.embeddings().vectors[:4]).shape  # four images: units, targets, classes
        (4, 1, 2)
        >>> run.predict(view.X, view.unit_of_image).shape[0] == len(view.unit_ids)
        True
        """
        if any(self.image_rules) and image_of_target is None:
            columns = sorted({rule.column for rule in self.image_rules if rule is not None})
            raise UsageError(
                f"run {self.folder} learned each target from the images that speak for it, by {', '.join(columns)}: "
                "image_of_target must say which these are (`embedstore.load_units` gives it)"
            )
        dim, vectors = self.identity.dim, np.ascontiguousarray(X, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise DataError(f"run {self.folder} wants vectors of shape (n, {dim}); found {vectors.shape}")
        owners = np.arange(len(vectors)) if unit_of_image is None else unit_numbers(unit_of_image)
        count = int(owners.max(initial=-1)) + 1 if n_units is None else n_units
        scores = self.predictor.scores(
            vectors,
            owners,
            n_units=count,
            metadata=None
            if metadata is None
            else {name: np.asarray(cells) for name, cells in metadata.items()},
            image_of_target=None if image_of_target is None else np.asarray(image_of_target, np.bool_),
        )
        return self.predictor.probabilities(scores)

    def _facts(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "run_id": self.run_id,
            "task": self.document["task"]["name"],
            "head": self.document["settings"]["head"],
            "targets": list(self.targets),
            "classes": list(self.classes),
            "metric": {
                name: round(entry["value"], 3)
                for name, entry in self.document["metrics"].items()
                if name == self.document["task"]["primary_metric"] and entry["value"] is not None
            },
        }


def save_run(folder: StrPath, result: ProbeResult) -> Run:
    """Write a probe's result as a run, in place of one already there; UsageError if it is no `ProbeResult`.

    ``run.json`` already there goes first, and the new one comes last: a folder without it is no run.

    Examples
    --------
    >>> heads.save_run("runs/again", result).targets
    ('abnormal',)
    """
    if not isinstance(result, ProbeResult):
        raise UsageError(
            f"result must be a ProbeResult, as heads.probe returns; found {type(result).__name__}"
        )
    make_folder_durable(folder := Path(folder))
    for name in (RUN_FILE, OUTLIERS_FILE):  # the latter may not be written anew
        (folder / name).unlink(missing_ok=True)
    predictions = predictions_table(result)
    label_noise = label_noise_table(result)
    learned_images = _learned_images(result)
    files = {
        HEAD_FILE: arrays_to_bytes([head.to_arrays() for head in result.fitted.predictor.heads]),
        CALIBRATOR_FILE: canonical_json(
            {"calibrators": [calibrator.to_json() for calibrator in result.fitted.predictor.calibrators]}
        ),
        PREDICTIONS_FILE: parquet_bytes(predictions),
        LEARNED_FILE: bytes(save({"content_sha256": learned_images})),
        LABEL_NOISE_FILE: parquet_bytes(label_noise),
        **({OUTLIERS_FILE: bytes(save(result.outliers.to_arrays()))} if result.outliers else {}),
    }
    for name, payload in files.items():
        write_durable(folder / name, payload, label=f"run-{name.split('.')[0]}")
    document = run_document(result) | {"files": {name: sha256_bytes(files[name]) for name in sorted(files)}}
    # As it will be read: keys that are numbers become text, and change places in the digest.
    document = sealed(json.loads(canonical_json(document)))
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_durable(folder / RUN_FILE, text.encode(), label="run")
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
    document = _read_document(folder / RUN_FILE)
    payloads = {name: _read_checked(folder / name, digest) for name, digest in document["files"].items()}
    identity = identity_from_json(document["identity"], source=str(folder / RUN_FILE))
    try:
        head = head_class(document["settings"]["head"])
        arrays = arrays_from_bytes(payloads[HEAD_FILE], len(document["heads"]))
        heads = [
            head.from_arrays(of_head, entry["params"])
            for of_head, entry in zip(arrays, document["heads"], strict=True)
        ]
        calibrators = [
            calibrator_from_json(entry, source=str(folder / CALIBRATOR_FILE))
            for entry in json.loads(payloads[CALIBRATOR_FILE])["calibrators"]
        ]
        predictor = Predictor(
            heads=heads,
            calibrators=calibrators,
            pooling=document["settings"]["pooling"],
            training_weights=tuple(tuple(entry["training_weights"]) for entry in document["heads"]),
            blocks=metadata_from_json(blocks) if (blocks := document["inputs"]["blocks"]) else None,
        )
        conformal = tuple(
            conformal_sets_from_json(entry["conformal"], source=str(folder / RUN_FILE))
            for entry in document["heads"]
        )
        bank = payloads.get(OUTLIERS_FILE)
        outliers = None if bank is None else Outliers.from_arrays(load(bank))
        learned_images = load(payloads[LEARNED_FILE])["content_sha256"]
        predictions = table_of_parquet(payloads[PREDICTIONS_FILE])
        label_noise = table_of_parquet(payloads[LABEL_NOISE_FILE])
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
    )


def _learned_images(result: ProbeResult) -> npt.NDArray[np.uint8]:
    view = result.view
    learned = np.isin(view.unit_ids, result.out_of_fold.unit_ids)[view.unit_of_image]
    if view.image_of_target is not None:
        learned &= view.image_of_target.any(axis=1)
    return np.ascontiguousarray(np.unique(view.content_sha256[learned], axis=0))


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} is not a run: it has no {RUN_FILE}", advice=Advice.PROBE) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if (found := document.get("format_version") if isinstance(document, dict) else None) != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version must be {FORMAT_VERSION}, found {found!r}; probe again, or use the release "
            "that wrote it"
        )
    needed = {"files", "identity", "sha256", "settings", "sources", "inputs", "heads", "task", "metrics"}
    missing = (needed | {"ece_bins", "classes"}) - set(document)
    lacking = set(FILES) - set(document.get("files", ())) - left_out_by_choice(document)
    if missing or lacking:
        raise DataError(f"{path}: lacks {sorted(missing | lacking)}; probe again")
    if (digest := content_sha256(document)) != document["sha256"]:
        raise DataError(
            f"{path} was changed after the run: its content has sha256 {digest[:12]}…, it says "
            f"{str(document['sha256'])[:12]}…; probe again"
        )
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
