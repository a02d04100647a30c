"""One head for several targets: what is stacked, that it is one head, that rare targets are learned with the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import UsageError
from embedstore.task import Task
from embedstore.view import MISSING, View
from heads.estimators.logistic import LogisticFamily, LogisticHead
from heads.inputs.shared_heads import stack_targets, target_groups
from heads.inputs.unit_images import UnitImages
from heads.protocol.learnable_targets import learnable_targets
from heads.runs.run_files import load_run, save_run
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.3,), normalisations=("none",))
GROUPS = (("upper", "lower"), ("side",))
TARGETS = ("upper", "lower", "side")


def crops_view(studies: int = 90, seed: int = 0) -> View:
    """Two images a target and study, of which the last number says the class; one study has none of ``lower``."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 2, (studies, 3))
    unit = np.repeat(np.arange(studies), 6)
    target = np.tile(np.repeat(np.arange(3), 2), studies)
    X = generator.normal(size=(len(unit), 5)).astype(np.float32)
    X[:, 4] += 2.0 * y[unit, target]
    kept = ~((unit == 4) & (target == 1))
    unit, target, X = unit[kept], target[kept], X[kept]
    y[4, 1] = MISSING
    labels = {"unit_id": [f"s{row}" for row in range(studies)]} | {
        name: [None if k == MISSING else ("no", "yes")[k] for k in y[:, at]]
        for at, name in enumerate(TARGETS)
    }
    base = make_view(patients=studies, valid_share=0)
    return View(
        task=Task("levels", "study", TARGETS, ("no", "yes"), pa.table(labels)),
        identity=replace(base.identity, dim=5),
        X=X,
        image_ids=np.array([f"i{row}" for row in range(len(X))]),
        content_sha256=generator.integers(0, 256, (len(X), 32)).astype(np.uint8),
        unit_of_image=unit,
        unit_ids=np.array(labels["unit_id"]),
        image_of_target=target[:, None] == np.arange(3),
        y=y,
        patients=np.array([f"p{row // 2}" for row in range(studies)]),
        splits=np.full(studies, ""),
        subgroups={},
        excluded={},
    )


def test_pairs_of_units_and_targets_are_units_with_their_own_images() -> None:
    view = crops_view(studies=6)
    rows = UnitImages.of_view(view, np.arange(6) // 2)
    stacked = stack_targets(rows, target_groups(GROUPS, TARGETS))
    assert len(stacked.unit) == 6 * 3 - 1
    for pair, (unit, target) in enumerate(zip(stacked.unit, stacked.target, strict=True)):
        group = int(target == 2)
        own = stacked.images.X[stacked.images.unit_of_row == pair]
        there = view.X[(view.unit_of_image == unit) & view.image_of_target[:, target]]
        assert own.tobytes() == there.tobytes()
        assert stacked.images.y[pair, group] == view.y[unit, target]
        assert stacked.images.y[pair, 1 - group] == MISSING
        assert stacked.images.groups[pair] == unit // 2
    back = stacked.unstacked(np.repeat(np.arange(17.0)[:, None, None], 2, axis=1))
    assert np.isnan(back[4, 1, 0])
    assert back[stacked.unit[3], stacked.target[3], 0] == 3


def test_targets_of_a_group_get_one_head_that_learned_from_all_of_them(tmp_path) -> None:
    view = crops_view()
    result = probed(view, folds=3, draws=5, family=GRID, shared_heads=GROUPS, pooling="mean-vector")
    heads = result.fitted.predictor.heads
    assert heads[0] is heads[1]
    assert heads[0] is not heads[2]
    means, labels = [], []
    for unit in range(len(view.unit_ids)):
        for target in (0, 1):
            own = view.X[(view.unit_of_image == unit) & view.image_of_target[:, target]]
            if len(own):
                means.append(own.astype(np.float64).mean(0))
                labels.append(view.y[unit, target])
    alone = LogisticHead(C=0.3, normalisation="none").fit(np.array(means, np.float32), np.array(labels))
    assert heads[0].to_arrays()["coef"] == pytest.approx(alone.to_arrays()["coef"], abs=1e-4)
    run = load_run(save_run(tmp_path / "run", result).folder)
    assert run.document["settings"]["shared_heads"] == [["upper", "lower"], ["side"]]
    again = run.predict(view.X, view.unit_of_image, image_of_target=view.image_of_target)
    once_more = result.fitted.predictor.probabilities(
        result.fitted.predictor.scores(
            view.X, view.unit_of_image, n_units=len(view.unit_ids), image_of_target=view.image_of_target
        )
    )
    assert again.tobytes() == once_more.tobytes()
    assert np.isnan(again[4, 1]).all()
    assert not np.isnan(again[4, 0]).any()


def test_folds_that_are_given_are_the_outer_folds_and_must_keep_patients_whole() -> None:
    view = crops_view()
    folds = (np.arange(90) // 2) % 3
    result = probed(
        replace(view, folds=folds), folds=3, draws=5, family=GRID, shared_heads=GROUPS, pooling="mean-vector"
    )
    assert result.evaluated.fold.tolist() == folds.tolist()
    with pytest.raises(Exception, match="keep patients"):
        probed(replace(view, folds=np.arange(90) % 3), folds=3, draws=5, family=GRID)


def test_a_rare_target_is_learned_with_its_group_and_not_alone() -> None:
    view = crops_view()
    y = view.y.copy()
    y[1:, 0] = np.where(y[1:, 0] == MISSING, MISSING, 0)
    rare = replace(view, y=y)
    groups = np.arange(90) // 2
    alone = learnable_targets(rare, groups, folds=3, seed=0)
    assert list(alone.left_out) == ["upper"]
    assert not learnable_targets(rare, groups, folds=3, seed=0, shared=GROUPS).left_out
    with pytest.raises(UsageError, match="found 'side' in 0"):
        target_groups(GROUPS[:1], TARGETS)


def test_a_learning_curve_shares_its_heads_as_the_probe_does() -> None:
    """Of one class in a target alone, nothing could be learned of it; with its group it can."""
    view = crops_view()
    y = view.y.copy()
    y[:, 0] = np.where(y[:, 0] == MISSING, MISSING, 0)
    options = {"folds": 3, "draws": 5, "family": GRID, "pooling": "mean-vector", "learning_curve": True}
    curve = probed(replace(view, y=y), shared_heads=GROUPS, **options).learning_curve
    assert curve is not None
    assert np.isfinite(curve.points[-1].metrics["log_loss"].value)
