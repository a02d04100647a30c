"""Cross-fitted fine-tuning: every study is answered by an encoder that never saw its patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedstore.errors import UsageError, first_few
from embedstore.files import write_table_durable
from embedstore.finetuned.encoder_folder import ENCODER_FILE, open_encoder_folder
from embedstore.view import MISSING, View
from finetune.fine_tuning import OUT_OF_FOLD_FILE, Prepared, prepare, train_on
from finetune.job import FineTuning, Watchers
from finetune.pictures.cached_inputs import drop_cache
from heads.scores import log_odds_of
from heads.statistics.bootstrap import Estimate
from heads.statistics.calibration import calibrate
from heads.statistics.measure import measure

METRICS = ("auroc", "kappa", "log_loss", "ece", "accuracy")
_CACHE_FOLDER = "cache"
_SMALLEST = 1e-7


@dataclass(frozen=True, kw_only=True)
class CrossFitted:
    """Out-of-fold answers for every study.

    Parameters
    ----------
    folder
        Holds the encoder of each fold and `table` as ``out_of_fold.parquet``.
    table
        A row for each unit and target: ids, fold, label, probabilities as they were said and calibrated on other folds.
    metrics
        Target -> metric -> estimate of the calibrated answers, with 95 % intervals by patient.
    seconds
        Of all trainings.
    """

    folder: Path
    table: pa.Table
    metrics: Mapping[str, Mapping[str, Estimate]]
    seconds: float


def cross_fit(
    job: FineTuning, folds: int, watchers: Watchers | None = None, *, draws: int = 1000
) -> CrossFitted:
    """Fine-tune once for each fold of patients, and answer for the fold that was left out.

    Parameters
    ----------
    job
        What is asked for; its folder gets one encoder for each fold. With `resume`, folds that are finished are kept.
    folds
        2 or more.
    watchers
        As `finetune.fine_tuning.fine_tune`.
    draws
        Bootstrap draws of patients.

    Raises
    ------
    UsageError
        If there are fewer folds than two, or a hold-out as well.
    EmbedError
        As `finetune.fine_tuning.fine_tune`.
    """
    if folds < 2:
        raise UsageError(f"`folds` must be 2 or more; found {folds}")
    if job.recipe.hold_out:
        raise UsageError(f"`folds` leave out everybody in turn; leave `hold_out={job.recipe.hold_out:g}` out")
    if job.from_run is not None:
        raise UsageError(
            "`folds` answer every study by what never saw its patient; the head of `from_run` has seen it"
        )
    watching, out = watchers or Watchers(), Path(job.out)
    _require_own(out)
    # One cache for all folds: the frozen blocks see every picture once.
    cache = replace(job.cache, folder=job.cache.folder or out / _CACHE_FOLDER)
    job = replace(job, recipe=replace(job.recipe, hold_out=0.0), cache=cache)
    prepared = prepare(job, watching)
    fold_of_unit = prepared.images.folds(folds, seed=job.recipe.seed)
    said = np.full((len(fold_of_unit), *_shape(prepared.images.view)), np.nan)
    seconds = 0.0
    for fold in range(folds):
        watching.say(f"fold {fold + 1} of {folds}")
        seconds += _train_fold(prepared, job, fold, fold_of_unit == fold, watching)
        _take(said, out / f"fold-{fold}", prepared.images.view)
    drop_cache(out / _CACHE_FOLDER)
    return _judged(
        out, prepared.images.view, fold_of_unit, said, seconds=seconds, draws=draws, seed=job.recipe.seed
    )


def _require_own(out: Path) -> None:
    """Refuse a folder that holds something else than folds; raises UsageError."""
    # A write that was killed leaves a name that begins with the file's.
    own = (_CACHE_FOLDER, OUT_OF_FOLD_FILE, "fold-")
    names = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else []
    if others := [name for name in names if not name.startswith(own)]:
        raise UsageError(f"`out` must be a new or an empty folder; {out} holds {first_few(others)}")


def _train_fold(
    prepared: Prepared, job: FineTuning, fold: int, units: npt.NDArray[np.bool_], watching: Watchers
) -> float:
    folder = Path(job.out) / f"fold-{fold}"
    if (folder / ENCODER_FILE).is_file():
        if not job.resume:
            raise UsageError(f"`out` must be a new folder; {folder} is a finished encoder. `resume` keeps it")
        folder_of_fold = open_encoder_folder(folder)
        prepared.require_recipe(folder_of_fold)
        folder_of_fold.require_unchanged()
        return float(folder_of_fold.document["training"]["seconds"])
    recipe = job.recipe
    images = prepared.images.left_out(units, share=recipe.validation_share, seed=recipe.seed + 1 + fold)
    tuned = train_on(replace(prepared, images=images), replace(job, out=folder), watching)
    return tuned.progress.seconds


def _take(said: npt.NDArray[np.float64], folder: Path, view: View) -> None:
    """Fill in what a fold's encoder said of the units that it never saw."""
    table = pq.read_table(folder / OUT_OF_FOLD_FILE, use_threads=False)
    row_of = {str(unit): row for row, unit in enumerate(view.unit_ids)}
    target_of = {target: at for at, target in enumerate(view.task.targets)}
    for unit, target, shares in zip(
        *(table.column(name).to_pylist() for name in ("unit_id", "target", "probabilities")), strict=True
    ):
        said[row_of[unit], target_of[target]] = shares


def _shape(view: View) -> tuple[int, int]:
    return len(view.task.targets), len(view.task.classes)


def _judged(
    out: Path,
    view: View,
    folds: npt.NDArray[np.int64],
    said: npt.NDArray[np.float64],
    *,
    seconds: float,
    draws: int,
    seed: int,
) -> CrossFitted:
    calibrated, metrics = np.full_like(said, np.nan), {}
    for at, target in enumerate(view.task.targets):
        rows = (folds >= 0) & np.isfinite(said[:, at]).all(axis=1)
        known = rows & (view.y[:, at] != MISSING)
        scores = log_odds_of(np.clip(said[known, at], _SMALLEST, 1))
        found = calibrate(scores, view.y[known, at], folds[known])
        calibrated[known, at] = found.probabilities
        calibrated[rows & ~known, at] = found.calibrator(
            log_odds_of(np.clip(said[rows & ~known, at], _SMALLEST, 1))
        )
        metrics[target] = measure(
            view.y[known, at],
            calibrated[known, at],
            patients=view.patients[known],
            metrics=METRICS,
            draws=draws,
            seed=seed,
        )
    table = _table(view, folds, said, calibrated)
    write_table_durable(out / OUT_OF_FOLD_FILE, table, label="out-of-fold")
    return CrossFitted(folder=out, table=table, metrics=metrics, seconds=seconds)


def _table(
    view: View,
    folds: npt.NDArray[np.int64],
    said: npt.NDArray[np.float64],
    calibrated: npt.NDArray[np.float64],
) -> pa.Table:
    units, targets = np.nonzero((folds >= 0)[:, None] & np.isfinite(said).all(axis=2))
    classes = [*view.task.classes, None]  # the last stands for a missing label, -1
    return pa.table(
        {
            "unit_id": view.unit_ids[units].tolist(),
            "patient_id": view.patients[units].tolist(),
            "target": [view.task.targets[target] for target in targets],
            "fold": folds[units],
            "label": [classes[code] for code in view.y[units, targets]],
            "probabilities": said[units, targets].tolist(),
            "calibrated": calibrated[units, targets].tolist(),
        }
    )
