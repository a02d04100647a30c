"""What answers was calibrated: an ensemble's out-of-fold scores, worked out again from its members."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.base import HeadFamily
from heads.ensemble import EnsembleHead
from heads.estimators.boosted import BoostedFamily
from heads.estimators.logistic import LogisticFamily
from heads.estimators.mlp import MlpFamily
from heads.folds import partitions
from heads.inputs.input_ways import HeadInputs
from heads.inputs.unit_images import UnitImages
from heads.protocol import fitting
from heads.protocol.fitting import AskedFinal, Fitted, fit, usual_repeats
from heads.protocol.options import ProbeOptions
from heads.protocol.select_inputs import Labelled, Selected, select_inputs
from heads.reliability import reliability_ratio
from heads.scores import pool_scores
from tests.views import make_view, probed

VIEW = make_view(patients=40, valid_share=0, targets=("one", "two"))
ROWS = UnitImages.of_view(VIEW, np.unique(VIEW.patients, return_inverse=True)[1])
TREES = BoostedFamily(({"max_depth": 2, "learning_rate": 0.3, "rounds": 8, "patience": 4},))
NETWORKS = MlpFamily(({"hidden": (4,), "learning_rate": 0.03, "minimum_steps": 24, "batch_size": 16},))
LOGISTIC = LogisticFamily(strengths=(0.01,), normalisations=("none",))


def fitted_on(
    grid: HeadFamily, rows: UnitImages = ROWS, *, final: AskedFinal = "auto", repeats: int | None = None
) -> Fitted:
    return fit(
        rows,
        grid,
        VIEW.task,
        inputs=[HeadInputs("mean-probability", ())],
        folds=3,
        class_weights="balanced",
        seed=4,
        final=final,
        repeats=repeats,
    )


@pytest.mark.parametrize("grid", [TREES, NETWORKS, LOGISTIC], ids=["xgboost", "mlp", "logistic"])
def test_a_units_score_is_the_mean_of_the_heads_that_never_saw_its_patient(grid: HeadFamily) -> None:
    found = fitted_on(grid, final="ensemble", repeats=3)
    of_unit = partitions(ROWS.y, ROWS.groups, folds=3, n_classes=2, seed=4, repeats=3)
    assert of_unit[0].tolist() == found.folds.tolist()
    assert found.ensemble is not None
    assert found.ensemble.repeats == 3
    for target in range(2):
        ensemble = found.predictor.heads[target]
        assert isinstance(ensemble, EnsembleHead)
        assert len(ensemble.members) == 9
        low, high = found.predictor.training_weights[target]
        by_repeat = np.empty((3, ROWS.n_units))
        for repeat, folds in enumerate(of_unit):
            for fold in range(3):
                of_rows = ensemble.members[3 * repeat + fold].decision_function(ROWS.X)
                pooled = pool_scores(
                    of_rows[:, None] - np.log(high / low), ROWS.unit_of_row, n_units=ROWS.n_units
                )
                by_repeat[repeat, folds == fold] = pooled[folds == fold, 0]
        ratio = found.ensemble.reliability[target]
        assert ratio == pytest.approx(reliability_ratio(by_repeat[:, :, None], heads=9), abs=1e-4)
        means = by_repeat.mean(axis=0)
        wanted = means.mean() + ratio * (means - means.mean())
        assert found.out_of_fold_scores[:, target, 0] == pytest.approx(wanted, abs=2e-3)


def test_trees_and_networks_are_ensembles_unless_a_refit_is_asked_for() -> None:
    for grid in (TREES, NETWORKS):
        assert isinstance(fitted_on(grid).predictor.heads[0], EnsembleHead)
        refitted = fitted_on(grid, final="refit")
        assert refitted.ensemble is None
        assert refitted.predictor.heads[0].get_params()["validation_share"] == 0
    assert fitted_on(LOGISTIC).ensemble is None


def test_few_rows_have_more_partitions() -> None:
    assert (usual_repeats(4_999), usual_repeats(5_000)) == (4, 2)
    ensemble = fitted_on(TREES).ensemble
    assert ensemble is not None
    assert ensemble.repeats == 4


def test_more_heads_than_patients_of_a_class_are_fitted_all_the_same() -> None:
    """Three patients of a class and 4 x 3 heads: each is outside of four, and inside of the others."""
    positive = [f"patient{number:05d}" for number in (3, 7, 12)]
    rows = replace(ROWS, y=np.isin(VIEW.patients, positive).astype(np.int64)[:, None].repeat(2, axis=1))
    found = fitted_on(TREES, rows, repeats=4)
    of_unit = partitions(rows.y, rows.groups, folds=3, n_classes=2, seed=4, repeats=4)
    for folds in of_unit:
        assert sorted(np.unique(folds[np.isin(VIEW.patients, positive)])) == [0, 1, 2]
    assert np.isfinite(found.out_of_fold_scores).all()
    assert np.isfinite(found.out_of_fold_probabilities).all()


def test_points_are_compared_on_some_of_the_patients_where_rows_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[UnitImages] = []

    def spied(labelled: Labelled, *args: object, **kwargs: object) -> list[Selected]:
        seen.append(labelled.images)
        return select_inputs(labelled, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "select_inputs", spied)
    fitted_on(TREES)
    monkeypatch.setattr(fitting, "_SELECTION_ROWS", 60)
    fitted_on(TREES)
    fitted_on(LOGISTIC)
    whole, some, of_refit = seen
    assert len(whole.X) == len(of_refit.X) == len(ROWS.X)
    assert 30 < len(some.X) < 75
    # A patient has all of its images, or none.
    known = {tuple(row): int(ROWS.groups[unit]) for row, unit in zip(ROWS.X, ROWS.unit_of_row, strict=True)}
    patients = {known[tuple(row)] for row in some.X}
    assert len(some.X) == int(np.isin(ROWS.groups[ROWS.unit_of_row], list(patients)).sum())
    # As many patients of each class as there are folds: where no part of all has so many, all are compared.
    rare = replace(ROWS, y=(ROWS.groups % 10 == 0).astype(np.int64)[:, None].repeat(2, axis=1))
    fitted_on(TREES, rare)
    assert len(seen[-1].X) > 60


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repeats": 1}, "repeats must be 2 to 50.*found 1"),
        ({"repeats": 51}, "repeats must be 2 to 50.*found 51"),
        ({"repeats": 3, "final": "refit"}, "`final='refit'` has no repeats; leave repeats=3 out"),
        ({"final": "mean"}, "final must be one of auto, refit, ensemble; found 'mean'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ProbeOptions(head="xgboost", **changes)  # type: ignore[arg-type]


def test_a_head_of_kept_vectors_is_no_ensemble() -> None:
    with pytest.raises(UsageError, match=r"`head='knn'` keeps the vectors .* leave `final='ensemble'` out"):
        probed(VIEW, "knn", final="ensemble", draws=2)
