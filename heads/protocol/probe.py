"""The protocol: fit, select, calibrate and evaluate one head on one task, the same way for every head."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import DataError, UsageError
from embedstore.view import MISSING, View
from heads.base import HeadFamily
from heads.inputs.input_ways import HeadInputs
from heads.inputs.leakage import leakage_groups, require_disjoint_splits
from heads.inputs.nested import Nests
from heads.inputs.unit_images import UnitImages
from heads.protocol.decided_by import decided_by
from heads.protocol.evaluate_units import evaluate_units
from heads.protocol.fitting import Fitted, fit
from heads.protocol.learnable_targets import LeftOut, learnable_targets
from heads.protocol.learning_curve import learning_curve
from heads.protocol.options import ProbeOptions, options_of
from heads.protocol.predictions import NO_FOLD, Evidence, InnerFolds, Predictions
from heads.protocol.probe_result import ProbeResult, Settings
from heads.protocol.select_inputs import Labelled, solve_nested
from heads.protocol.splits import Split, require_untrained, split_units
from heads.scores import log_odds_of
from heads.stages import counted, stage
from heads.statistics.conformal import UNKNOWN, ConformalSets, conformal_sets
from heads.statistics.outliers import learn_outliers


def probe(
    view: View, options: ProbeOptions | str = "logistic", *, family: HeadFamily | None = None
) -> ProbeResult:
    """Fit, select, calibrate and evaluate one head on one task.

    Parameters
    ----------
    view
        Vectors, labels, patients, splits, and the metadata that the head gets beside the vectors.
    options
        How; the name of a head stands for its defaults.
    family
        A grid to search in place of the head's default.

    Raises
    ------
    DataError
        If patients or pixels cross the split, vectors are not finite, or no target can be learned
        (`heads.protocol.learnable_targets`; the others are left out, or refused with `strict_targets`).
    UsageError
        If `view` is no View, an option does not fit it, or a metadata column must not be seen by a head.

    Examples
    --------
    >>> result = heads.probe(view, heads.ProbeOptions(head="logistic", draws=50))
    >>> 0.5 < result.evaluation.overall["auroc"].value <= 1
    True
    """
    if not isinstance(view, View):
        raise UsageError(
            f"view must be a View: use embedstore.load_view(store, task); found {type(view).__name__}"
        )
    seconds: dict[str, float] = {}
    options_of(options).require_no_vectors()
    options_of(options).require_final()
    with _timed(seconds, "fit"):
        plan = _plan(view, options_of(options), family)
        view, asked, split = plan.view, plan.asked, plan.split
        rows = plan.everyone.take(split.fitted)
        dealt = None if view.folds is None else view.folds[split.fitted]
        grids = _grids(rows, plan, dealt)
        fitted = _fit(rows, plan, seed=asked.seed, dealt=dealt, grid=grids[0])
        sets = _sets(view, rows, fitted, asked.coverage)
    with _timed(seconds, "outliers"), stage("distances between patients"):
        learned = (rows.X, rows.unit_of_row, rows.groups)
        outliers = learn_outliers(*learned, seed=asked.seed) if asked.bank else None
    with _timed(seconds, "predict"):
        evaluated, evidence = (
            (_predict(plan, fitted, sets, split.evaluated), Evidence(cut=_cut(fitted)))
            if split.mode != "outer cross-validation"
            else _cross_validate(plan, fitted, grids[1:])
        )
    with _timed(seconds, "evaluate"):
        evaluation = evaluate_units(
            view,
            evaluated,
            split.evaluated,
            fitted,
            rows.y,
            draws=asked.draws,
            seed=asked.seed,
            shared=asked.shared_heads,
        )
    curve = None
    if asked.learning_curve:
        with _timed(seconds, "learning_curve"):
            curve = learning_curve(view, asked, family=family)
    return ProbeResult(
        view=view,
        settings=_settings(plan, fitted),
        fitted=fitted,
        conformal=sets,
        outliers=outliers,
        out_of_fold=_out_of_fold(view, split.fitted, rows, fitted),
        evaluated=evaluated,
        evaluation=evaluation,
        excluded={**view.excluded, **split.excluded},
        seconds=seconds,
        learning_curve=curve,
        left_out=plan.left_out,
        decided_by=plan.decided_by,
        evidence=evidence,
    )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is probed and how, checked before anything is fitted."""

    view: View  # of the targets that can be learned
    asked: ProbeOptions  # with the number of folds that is possible
    folds_asked: int
    split: Split
    grid: HeadFamily
    ways: Sequence[HeadInputs]
    everyone: UnitImages
    left_out: Mapping[str, LeftOut]
    decided_by: Mapping[str, Any]


def _plan(view: View, asked: ProbeOptions, family: HeadFamily | None) -> _Plan:
    view = asked.take(view)
    asked.ways(view)
    _require_usable(view)
    split = split_units(view)
    require_untrained(view, split)
    if split.mode != "outer cross-validation":
        require_disjoint_splits(view, split.fitted, split.evaluated)
    grid = asked.grid(family)
    groups = leakage_groups(view)
    decided = decided_by(view, asked, grid)
    _require_folds(view, groups, asked.folds)
    found = learnable_targets(
        view,
        groups,
        folds=asked.folds,
        seed=asked.seed,
        strict=asked.strict_targets,
        shared=asked.shared_heads,
    )
    if view.folds is not None and found.folds < asked.folds:
        raise DataError(
            f"task {view.task.name!r}: no target has as many patients of each class as the {asked.folds} given folds "
            f"need; {found.folds} would do"
        )
    return _Plan(
        view=found.view,
        asked=replace(asked, folds=found.folds, targets=()),
        folds_asked=asked.folds,
        split=split_units(found.view),
        grid=grid,
        ways=asked.ways(found.view),
        everyone=UnitImages.of_view(found.view, groups),
        left_out=found.left_out,
        decided_by=decided,
    )


def _grids(rows: UnitImages, plan: _Plan, dealt: npt.NDArray[np.int64] | None) -> list[HeadFamily]:
    """Return the grid for all units and for those outside of each outer fold, solved together where that is quicker."""
    asked, grid = plan.asked, plan.grid
    folds = asked.folds if plan.split.mode == "outer cross-validation" else 0
    apart = [grid] * (1 + folds)
    if not folds or not isinstance(grid, Nests) or asked.final == "ensemble" or asked.shared_heads:
        return apart

    def labelled(part: UnitImages, index: int, dealt: npt.NDArray[np.int64] | None) -> Labelled:
        return Labelled.of(
            part,
            plan.view.task,
            folds=folds,
            class_weights=asked.class_weights,
            seed=asked.seed + index,
            dealt=dealt,
        )

    everyone = labelled(rows, 0, dealt)
    parts = [(np.ones(rows.n_units, np.bool_), everyone)]
    for fold in range(folds):
        inside = everyone.folds != fold
        parts.append((inside, labelled(rows.take(inside), 1 + fold, None)))
    with stage("selection"):
        return solve_nested(parts, plan.ways, grid, seed=asked.seed)


def _fit(
    rows: UnitImages,
    plan: _Plan,
    *,
    seed: int,
    grid: HeadFamily,
    dealt: npt.NDArray[np.int64] | None = None,
) -> Fitted:
    return fit(
        rows,
        grid,
        plan.view.task,
        inputs=plan.ways,
        folds=plan.asked.folds,
        class_weights=plan.asked.class_weights,
        seed=seed,
        final=plan.asked.final,
        repeats=plan.asked.repeats,
        shared=plan.asked.shared_heads,
        dealt=dealt,
    )


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note how long a step takes."""
    started = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - started


def _settings(plan: _Plan, fitted: Fitted) -> Settings:
    return Settings(
        options=plan.asked,
        inputs=fitted.inputs,
        mode=plan.split.mode,
        fit_splits=plan.split.fit_names,
        evaluation_split=plan.split.evaluation_name,
        folds_asked=plan.folds_asked,
        repeats=fitted.ensemble.repeats if fitted.ensemble else 0,
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


def _require_folds(view: View, groups: npt.NDArray[np.int64], folds: int) -> None:
    """Refuse outer folds of a view that part patients, or are not as many as asked for."""
    if view.folds is None:
        return
    of_group = np.unique(np.stack([groups, view.folds]), axis=1)
    if len(np.unique(of_group[0])) < of_group.shape[1] or set(np.unique(view.folds)) != set(range(folds)):
        raise DataError(
            f"task {view.task.name!r}: folds must be 0 to {folds - 1} and keep patients, and patients who share an "
            f"image, together; found folds {np.unique(view.folds).tolist()}"
        )


def _sets(view: View, rows: UnitImages, fitted: Fitted, coverage: float) -> tuple[ConformalSets, ...]:
    """Find the bars of each target on what was said of the units learned from, per patient."""
    return tuple(
        conformal_sets(
            fitted.cut_probabilities[:, index],
            rows.y[:, index],
            rows.groups,
            classes=view.task.classes,
            coverage=coverage,
        )
        for index in range(len(view.task.targets))
    )


def _out_of_fold(view: View, units: npt.NDArray[np.bool_], rows: UnitImages, fitted: Fitted) -> Predictions:
    """Return what selection and calibration said of the units learned from."""
    probabilities = fitted.out_of_fold_probabilities
    return Predictions(
        unit_ids=view.unit_ids[units],
        patients=view.patients[units],
        splits=view.splits[units],
        fold=fitted.folds,
        y=rows.y,
        scores=fitted.out_of_fold_scores,
        probabilities=probabilities,
        members=np.full(probabilities.shape, UNKNOWN, np.int8),
    )


def _predict(
    plan: _Plan, fitted: Fitted, sets: tuple[ConformalSets, ...], units: npt.NDArray[np.bool_]
) -> Predictions:
    view, rows = plan.view, plan.everyone.take(units)
    with stage("prediction"):
        scores = fitted.predictor.scores(
            rows.X,
            rows.unit_of_row,
            n_units=rows.n_units,
            metadata=rows.metadata,
            image_of_target=rows.image_of_target,
        )
    probabilities = fitted.predictor.probabilities(scores)
    members = [of_target.members(probabilities[:, index]) for index, of_target in enumerate(sets)]
    return Predictions(
        unit_ids=view.unit_ids[units],
        patients=view.patients[units],
        splits=view.splits[units],
        fold=np.full(rows.n_units, NO_FOLD),
        y=rows.y,
        scores=scores,
        probabilities=probabilities,
        members=np.stack(members, axis=1),
    )


def _cut(fitted: Fitted) -> npt.NDArray[np.float32] | None:
    """Return the log odds from which thresholds and bars were cut; None where they are the out-of-fold ones."""
    if fitted.ensemble is None:
        return None
    return log_odds_of(fitted.cut_probabilities).astype(np.float32)


def _cross_validate(plan: _Plan, fitted: Fitted, grids: Sequence[HeadFamily]) -> tuple[Predictions, Evidence]:
    """Score every unit by a head made without its patient: inputs, grid point, calibrator and fit."""
    units, folds = plan.split.fitted, plan.asked.folds
    indices = np.flatnonzero(units)
    inner_folds = np.full((folds, len(indices)), NO_FOLD)
    log_odds, cut = np.full((2, folds, *fitted.out_of_fold_scores.shape), np.nan, np.float32)
    parts = []
    for fold in counted("outer fold", range(folds)):
        inside, left_out = np.zeros_like(units), np.zeros_like(units)
        inside[indices[fitted.folds != fold]] = True
        left_out[indices[fitted.folds == fold]] = True
        inner = plan.everyone.take(inside)
        outer = _fit(inner, plan, seed=plan.asked.seed + 1 + fold, grid=grids[fold])
        part = _predict(plan, outer, _sets(plan.view, inner, outer, plan.asked.coverage), left_out)
        parts.append((np.flatnonzero(left_out), replace(part, fold=np.full(int(left_out.sum()), fold))))
        inner_folds[fold, fitted.folds != fold] = outer.folds
        log_odds[fold, fitted.folds != fold] = log_odds_of(outer.out_of_fold_probabilities)
        cut[fold, fitted.folds != fold] = log_odds_of(outer.cut_probabilities)
    order = np.argsort(np.concatenate([index for index, _ in parts]), kind="stable")

    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for _, part in parts])[order]

    inside_folds = InnerFolds(
        folds=inner_folds, log_odds=log_odds, cut=None if fitted.ensemble is None else cut
    )
    predictions = Predictions(**{name: joined(name) for name in Predictions.__dataclass_fields__})
    return predictions, Evidence(cut=_cut(fitted), inner=inside_folds)
