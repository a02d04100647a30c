"""Images with their units, and selection in several lots of targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from embedstore.view import MISSING, View, take_targets
from heads.base import HeadFamily
from heads.estimators.logistic import LogisticFamily
from heads.estimators.neighbors import NeighborsFamily
from heads.inputs.input_ways import HeadInputs
from heads.inputs.leakage import leakage_groups
from heads.inputs.unit_images import UnitImages
from heads.protocol import fitting, select_inputs
from heads.protocol.fitting import Fitted
from heads.statistics.conformal import UNKNOWN
from tests.views import make_view, probed


def test_units_that_lie_together_are_taken_without_a_copy() -> None:
    view = make_view()
    rows = UnitImages.of_view(view, leakage_groups(view))
    units = np.arange(rows.n_units) < 50
    first = rows.take(units)
    assert np.shares_memory(first.X, view.X)
    assert first.unit_of_row.max() == 49


def test_units_are_renumbered_wherever_they_lie() -> None:
    view = make_view()
    rows = UnitImages.of_view(view, leakage_groups(view))
    units = np.random.default_rng(0).random(rows.n_units) < 0.5
    some = rows.take(units)
    kept = np.flatnonzero(units)
    of_image = [list(kept).index(unit) for unit in view.unit_of_image if units[unit]]
    assert some.unit_of_row.tolist() == of_image
    assert (view.X[units[view.unit_of_image]] == some.X).all()
    assert (some.y == view.y[kept]).all()


@pytest.mark.parametrize(
    ("head", "family"),
    [
        ("logistic", LogisticFamily(strengths=(0.01, 1.0))),
        ("knn", NeighborsFamily(ks=(5, 20), temperatures=(0.1,))),
    ],
)
def test_targets_are_selected_alike_in_lots_and_at_once(
    monkeypatch: pytest.MonkeyPatch, head: str, family: object
) -> None:
    view = make_view(targets=("canal", "left", "right"), classes=("mild", "moderate", "severe"))
    once = probed(view, head, draws=5, family=family, class_weights="balanced").fitted
    monkeypatch.setattr(select_inputs, "_scores_held", lambda grid, training: 1)
    lots = probed(view, head, draws=5, family=family, class_weights="balanced").fitted
    assert lots.points == once.points
    assert lots.losses == pytest.approx(once.losses, abs=1e-6)
    assert lots.out_of_fold_scores == pytest.approx(once.out_of_fold_scores, abs=1e-4)


MASKED_FOLDS = 3
GRID = LogisticFamily(strengths=(0.01, 1.0))


def _some_images(view: View, seed: int) -> npt.NDArray[np.bool_]:
    """Draw images, of every unit one at least."""
    mask = np.random.default_rng(seed).random(len(view.image_ids)) < 0.5
    _, first = np.unique(view.unit_of_image, return_index=True)
    mask[first] = True
    assert not mask.all()
    return mask


def _without_images(view: View, kept: npt.NDArray[np.bool_]) -> View:
    return replace(
        view,
        X=view.X[kept],
        image_ids=view.image_ids[kept],
        content_sha256=view.content_sha256[kept],
        unit_of_image=view.unit_of_image[kept],
        metadata={column: cells[kept] for column, cells in view.metadata.items()},
        image_of_target=None,
    )


@pytest.mark.parametrize("pooling", ["mean-probability", "mean-vector", "max-vector"])
@pytest.mark.parametrize("valid_share", [0.3, 0.0])
def test_images_that_do_not_speak_for_the_target_change_no_bit(pooling: str, valid_share: float) -> None:
    view = make_view(valid_share=valid_share)
    site = np.array([f"site{row % 3}" for row in range(len(view.image_ids))])
    # A level that only images without a part have.
    kept = _some_images(view, 0)
    view = replace(view, metadata={"site": np.where(kept, site, "elsewhere")})
    options = {"draws": 5, "folds": MASKED_FOLDS, "family": GRID, "pooling": pooling}
    masked = probed(replace(view, image_of_target=kept[:, None]), **options)
    lacking = probed(_without_images(view, kept), **options)
    whole = probed(view, **options)
    for part in ("out_of_fold", "evaluated"):
        found, expected = getattr(masked, part), getattr(lacking, part)
        assert found.probabilities.tobytes() == expected.probabilities.tobytes()
        assert found.scores.tobytes() == expected.scores.tobytes()
        assert found.unit_ids.tolist() == expected.unit_ids.tolist()
        assert found.probabilities.tobytes() != getattr(whole, part).probabilities.tobytes()
    assert masked.outliers.bank.tobytes() == lacking.outliers.bank.tobytes()


@pytest.mark.parametrize("pooling", ["mean-probability", "mean-vector"])
@pytest.mark.parametrize(
    ("head", "family"), [("logistic", GRID), ("knn", NeighborsFamily(ks=(5, 20), temperatures=(0.1,)))]
)
def test_each_target_is_learned_and_said_as_if_it_were_alone_with_its_images(
    monkeypatch: pytest.MonkeyPatch, pooling: str, head: str, family: HeadFamily
) -> None:
    targets = ("canal", "left", "right")
    view = make_view(targets=targets)
    mask = np.stack([_some_images(view, seed) for seed in range(3)], axis=1)
    masked = replace(view, image_of_target=mask)
    # The same folds for all: they are stratified by the labels of every target.
    fold_of_unit = np.random.default_rng(0).permutation(np.arange(len(view.unit_ids)) % MASKED_FOLDS)
    monkeypatch.setattr(select_inputs, "assign_folds", lambda *_, **__: fold_of_unit)
    groups = np.arange(len(view.unit_ids))

    def fitted(some: View) -> Fitted:
        return fitting.fit(
            UnitImages.of_view(some, groups),
            family,
            some.task,
            inputs=(HeadInputs(pooling),),
            folds=MASKED_FOLDS,
            class_weights="balanced",
            seed=0,
        )

    together = fitted(masked)
    new = make_view(targets=targets, seed=1)
    new_mask = np.stack([_some_images(new, seed) for seed in range(3)], axis=1)
    scores = together.predictor.scores(
        new.X, new.unit_of_image, n_units=len(new.unit_ids), image_of_target=new_mask
    )
    probabilities = together.predictor.probabilities(scores)
    for index, target in enumerate(targets):
        alone = fitted(_without_images(take_targets(view, [target]), mask[:, index]))
        assert together.points[index] == alone.points[0]
        assert together.losses[:, index].tobytes() == alone.losses[:, 0].tobytes()
        for name in ("out_of_fold_scores", "out_of_fold_probabilities"):
            found, expected = getattr(together, name)[:, index], getattr(alone, name)[:, 0]
            assert found.tobytes() == expected.tobytes(), name
        own = _without_images(new, new_mask[:, index])
        expected_scores = alone.predictor.scores(own.X, own.unit_of_image, n_units=len(own.unit_ids))
        assert scores[:, index].tobytes() == expected_scores[:, 0].tobytes()
        assert (
            probabilities[:, index].tobytes()
            == alone.predictor.probabilities(expected_scores)[:, 0].tobytes()
        )


def test_targets_of_the_same_images_are_worked_on_together() -> None:
    view = make_view(targets=("canal", "left", "right"))
    own = _some_images(view, 0)
    mask = np.stack([own, np.ones_like(own), own], axis=1)
    parts = UnitImages.of_view(replace(view, image_of_target=mask), np.arange(len(view.unit_ids))).by_images()
    assert [part.targets for part in parts] == [[0, 2], [1]]
    assert [len(part.images.X) for part in parts] == [own.sum(), len(own)]
    assert [part.images.image_of_target for part in parts] == [None, None]
    assert (parts[0].images.y == view.y[:, [0, 2]]).all()


def test_a_unit_without_an_image_for_a_target_is_not_answered_for_it() -> None:
    view = make_view(targets=("canal", "left"))
    silent = view.unit_of_image % 5 == 0
    y = view.y.copy()
    y[::5, 1] = MISSING
    mask = np.stack([np.ones_like(silent), ~silent], axis=1)
    masked = replace(view, y=y, image_of_target=mask)
    result = probed(masked, draws=5, folds=MASKED_FOLDS, family=GRID)
    alone = probed(take_targets(masked, ["left"]), draws=5, folds=MASKED_FOLDS, family=GRID)
    lacking = ~np.isin(result.evaluated.unit_ids, alone.evaluated.unit_ids)
    assert lacking.any()
    assert np.isfinite(result.evaluated.probabilities[:, 0]).all()
    assert (np.isnan(result.evaluated.probabilities[:, 1]).all(axis=1) == lacking).all()
    assert (result.evaluated.members[lacking, 1] == UNKNOWN).all()
    assert (result.evaluated.members[~lacking, 1] != UNKNOWN).all()
    assert result.evaluation.by_target["left"]["auroc"].n == (~lacking).sum()
