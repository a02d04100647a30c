"""The protocol: fit, select, calibrate and evaluate one head on one task, the same way for every head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.view import MISSING, View
from heads.base import HeadFamily
from heads.inputs.class_weights import ClassWeights
from heads.inputs.input_ways import HeadInputs, named_inputs
from heads.inputs.unit_images import UnitImages
from heads.protocol.evaluate_units import judge
from heads.protocol.fitting import Fitted, fit
from heads.protocol.leakage import leakage_groups, require_disjoint_splits
from heads.protocol.probe_result import Predictions, ProbeResult, Settings
from heads.protocol.splits import split_units
from heads.registry import head_family
from heads.statistics.bootstrap import DRAWS
from heads.statistics.conformal import COVERAGE, UNKNOWN, ConformalSets, conformal_sets
from heads.statistics.outliers import learn_outliers


def probe(
    view: View,
    head: str = "logistic",
    *,
    seed: int = 0,
    folds: int = 5,
    draws: int = DRAWS,
    pooling: str | None = None,
    inputs: Sequence[HeadInputs] | None = None,
    class_weights: ClassWeights = "none",
    coverage: float = COVERAGE,
    family: HeadFamily | None = None,
    device: str | None = None,
) -> ProbeResult:
    """Fit, select, calibrate and evaluate one head on one task.

    Parameters
    ----------
    view
        Vectors, labels, patients, splits, and the metadata that the head gets beside the vectors.
    head
        Name of an installed head.
    seed
        Of folds, heads and bootstrap.
    folds
        Patient folds of selection and calibration, and of the outer cross-validation.
    draws
        Bootstrap draws.
    pooling
        How a study's images give one answer; the task's rule by default.
    inputs
        Ways of giving units to the head, to choose from by out-of-fold log loss in place of `pooling`
        (`heads.inputs.input_ways.all_inputs`); by default there is one, with all metadata of the view.
    class_weights
        Weights of training: ``none``, ``balanced`` or the ``task``'s.
    coverage
        Rate at which conformal sets shall hold the true class.
    family
        A grid to search in place of the head's default.
    device
        Where to fit: ``auto``, ``cpu`` or ``cuda``; by default where the grid says. Scores are always computed
        on the CPU.

    Raises
    ------
    DataError
        If patients or pixels cross the split, vectors are not finite, or the labels cannot be learned.
    UsageError
        If an option is wrong, or a metadata column must not be seen by a head.
    """
    started = time.perf_counter()
    if not 0 < coverage < 1:
        raise UsageError(f"coverage must be above 0 and below 1; found {coverage}")
    if draws < 1 or folds < 2:
        raise UsageError(f"draws must be 1 or more and folds 2 or more; found draws={draws}, folds={folds}")
    ways = named_inputs(view, pooling, inputs)
    _require_usable(view)
    split = split_units(view)
    official = split.mode == "official split"
    if official:
        require_disjoint_splits(view, split.fitted, split.judged)
    grid = head_family(head) if family is None else family
    grid = grid if device is None else grid.on_device(device)
    everyone = UnitImages.of_view(view, leakage_groups(view))
    rows = everyone.take(split.fitted)
    fitted = fit(rows, grid, view.task, inputs=ways, folds=folds, class_weights=class_weights, seed=seed)
    settings = Settings(
        head=head,
        mode=split.mode,
        fit_splits=split.fit_names,
        evaluation_split=split.judged_name,
        pooling=fitted.inputs.pooling,
        metadata=fitted.inputs.metadata,
        class_weights=class_weights,
        folds=folds,
        draws=draws,
        seed=seed,
        coverage=coverage,
    )
    sets = _sets(view, rows, fitted, coverage)
    learned = fitted.out_of_fold_probabilities
    out_of_fold = Predictions(
        view.unit_ids[split.fitted],
        view.patients[split.fitted],
        fitted.folds,
        rows.y,
        fitted.out_of_fold_scores,
        learned,
        np.full(learned.shape, UNKNOWN, np.int8),
    )
    seconds = {"fit": time.perf_counter() - started}
    before = time.perf_counter()
    outliers = learn_outliers(rows.X, rows.unit_of_row, rows.groups, seed=seed)
    seconds["outliers"] = time.perf_counter() - before
    before = time.perf_counter()
    judged = (
        _predict(view, everyone, fitted, sets, split.judged)
        if official
        else _cross_validate(view, everyone, split.fitted, fitted, grid, ways, settings)
    )
    seconds["predict"] = time.perf_counter() - before
    before = time.perf_counter()
    evaluation = judge(view, judged, split.judged, fitted, settings)
    seconds["evaluate"] = time.perf_counter() - before
    excluded = {**view.excluded, **split.excluded}
    return ProbeResult(
        view, settings, fitted, sets, outliers, out_of_fold, judged, evaluation, excluded, seconds
    )


def _require_usable(view: View) -> None:
    where = f"task {view.task.name!r}"
    if len(view.unit_ids) == 0:
        raise DataError(
            f"{where}: no labelled unit has a vector; excluded: {dict(view.excluded) or 'nothing'}"
        )
    bad = np.asarray(~np.isfinite(view.X).all(axis=1))
    if bad.any():
        raise DataError(
            f"{where}: {int(bad.sum())} of {len(bad)} vectors hold NaN or infinity, the first of image "
            f"{view.image_ids[int(np.argmax(bad))]}; leave failed images out of the view"
        )
    if len(np.unique(view.unit_ids)) != len(view.unit_ids):
        raise DataError(f"{where}: unit ids must be unique")
    if view.y.max() >= len(view.task.classes) or view.y.min() < MISSING:
        raise DataError(
            f"{where}: labels must index {list(view.task.classes)} or be {MISSING}; "
            f"found {view.y.min()} to {view.y.max()}"
        )


def _sets(view: View, rows: UnitImages, fitted: Fitted, coverage: float) -> tuple[ConformalSets, ...]:
    """Find the bars of each target on the out-of-fold probabilities, per patient."""
    return tuple(
        conformal_sets(
            fitted.out_of_fold_probabilities[:, index],
            rows.y[:, index],
            rows.groups,
            classes=view.task.classes,
            coverage=coverage,
        )
        for index in range(len(view.task.targets))
    )


def _predict(
    view: View,
    everyone: UnitImages,
    fitted: Fitted,
    sets: tuple[ConformalSets, ...],
    units: npt.NDArray[np.bool_],
) -> Predictions:
    rows = everyone.take(units)
    scores = fitted.predictor.scores(rows.X, rows.unit_of_row, n_units=rows.n_units, metadata=rows.metadata)
    probabilities = fitted.predictor.probabilities(scores)
    members = [of_target.members(probabilities[:, index]) for index, of_target in enumerate(sets)]
    return Predictions(
        view.unit_ids[units],
        view.patients[units],
        np.full(rows.n_units, -1),
        rows.y,
        scores,
        probabilities,
        np.stack(members, axis=1),
    )


def _cross_validate(
    view: View,
    everyone: UnitImages,
    units: npt.NDArray[np.bool_],
    fitted: Fitted,
    grid: HeadFamily,
    inputs: Sequence[HeadInputs],
    settings: Settings,
) -> Predictions:
    """Score every unit by a head made without its patient: inputs, grid point, calibrator and fit."""
    indices = np.flatnonzero(units)
    parts = []
    for fold in range(settings.folds):
        inside, left_out = np.zeros_like(units), np.zeros_like(units)
        inside[indices[fitted.folds != fold]] = True
        left_out[indices[fitted.folds == fold]] = True
        inner = everyone.take(inside)
        outer = fit(
            inner,
            grid,
            view.task,
            inputs=inputs,
            folds=settings.folds,
            class_weights=settings.class_weights,
            seed=settings.seed + 1 + fold,
        )
        part = _predict(view, everyone, outer, _sets(view, inner, outer, settings.coverage), left_out)
        parts.append((np.flatnonzero(left_out), replace(part, fold=np.full(int(left_out.sum()), fold))))
    order = np.argsort(np.concatenate([index for index, _ in parts]), kind="stable")

    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for _, part in parts])[order]

    return Predictions(**{name: joined(name) for name in Predictions.__dataclass_fields__})
