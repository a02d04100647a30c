"""Heads of all rows: every row has a part in them, they stop where the folds' heads did, and sets still hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from embedstore.task import Task
from heads.base import HeadFamily, OutOfFold
from heads.estimators.boosted import BoostedFamily, BoostedHead
from heads.estimators.mlp import MlpFamily, MlpHead
from heads.estimators.neighbors import NeighborsFamily, neighbors_as_steady
from heads.inputs.input_ways import HeadInputs
from heads.inputs.unit_images import UnitImages
from heads.protocol.fitting import AskedFinal, fit
from heads.solvers.early_stopping import usual_stop
from heads.statistics.conformal import conformal_sets
from heads.testing import folds_of, make_training

TREES = BoostedFamily(({"max_depth": 2, "learning_rate": 0.3, "rounds": 40, "patience": 5},))
NETWORKS = MlpFamily(({"hidden": (6,), "learning_rate": 0.02, "minimum_steps": 36, "batch_size": 32},))
TREES_OF_FEW = BoostedFamily(({"max_depth": 2, "rounds": 40, "learning_rate": 0.3, "patience": 10},))
NEIGHBORS = NeighborsFamily(ks=(5, 40), temperatures=(1.0,))
TASK = Task(
    "stenosis", "study", ("canal",), ("mild", "moderate", "severe"), pa.table({"unit_id": [], "canal": []})
)


def _params(found: OutOfFold, family: HeadFamily, targets: int) -> list[dict[str, object]]:
    return [found.params(family.points[0], 0, target) for target in range(targets)]


@pytest.mark.parametrize("family", [TREES, NETWORKS, NEIGHBORS], ids=["xgboost", "mlp", "knn"])
def test_every_row_has_a_part_in_the_head_of_all_rows(family: HeadFamily) -> None:
    training = make_training(n=40, targets=1, signal=1.5)
    params = _params(family.out_of_fold(training, folds_of(training), seed=0), family, 1)
    before = family.refit(training, params, seed=0)[0].decision_function(training.X)
    for row in range(40):
        weight = training.sample_weight.copy()
        weight[row] = 3.0
        heavier = family.refit(replace(training, sample_weight=weight), params, seed=0)[0]
        assert (heavier.decision_function(training.X) != before).any(), row


@pytest.mark.parametrize(("family", "head"), [(TREES, BoostedHead), (NETWORKS, MlpHead)])
def test_the_head_of_all_rows_stops_at_the_median_of_the_folds(
    family: HeadFamily, head: type[BoostedHead] | type[MlpHead]
) -> None:
    training = make_training(signal=1.0)
    folds = folds_of(training)
    params = _params(family.out_of_fold(training, folds, seed=2), family, 2)
    fitted = family.refit(training, params, seed=2)
    for target in range(2):
        stops = []
        for fold in range(3):
            inside = folds != fold
            alone = head(**family.points[0], random_state=2)
            alone.fit(training.X[inside], training.y[inside, target], groups=training.groups[inside])
            stops.append(alone.n_iter_)
        assert fitted[target].n_iter_ == sorted(stops)[1]
        assert fitted[target].get_params()["validation_share"] == 0
        again = head(**fitted[target].get_params()).fit(training.X, training.y[:, target])
        assert again.decision_function(training.X) == pytest.approx(
            fitted[target].decision_function(training.X), abs=1e-4
        )


def test_a_median_between_two_rounds_is_the_lower() -> None:
    assert [usual_stop(stops) for stops in ([7, 1, 3], [2, 3], [0, 0, 9], [4])] == [3, 2, 0, 4]


@pytest.mark.parametrize(
    ("k", "few", "many", "expected"),
    [
        (40, 60, 120, 60),  # 1/40 - 1/60 = 1/60 - 1/120
        (45, 45, 56, 56),
        (200, 45, 56, 56),
        (200, 29_446, 36_808, 200),
    ],
)
def test_as_many_neighbours_vote_as_make_the_share_equally_steady(
    k: int, few: int, many: int, expected: int
) -> None:
    assert neighbors_as_steady(k, few, many) == expected


def test_neighbours_that_were_all_rows_outside_a_fold_are_all_rows() -> None:
    training = make_training(n=60, targets=2)
    training.y[:30, 1] = -1
    found = NEIGHBORS.out_of_fold(training, folds_of(training), seed=0)
    # 40 of 40 rows outside a fold voted for the first target, 20 of 20 for the second.
    assert found.refit_params[1] == [{"k": 60}, {"k": 30}]
    # 5 of 40 and of 20 did: 1 / (1/5 - 1/40 + 1/60) = 5.2 and 1 / (1/5 - 1/20 + 1/30) = 5.5.
    assert found.refit_params[0] == [{"k": 5}, {"k": 5}]


@pytest.mark.parametrize(
    ("family", "final", "least", "least_of_most"),
    [
        # 44 or 45 patients are outside a fold: there all of them vote.
        (NeighborsFamily(ks=(50,), temperatures=(1.0,)), "refit", 0.9, 0.8),
        (TREES_OF_FEW, "refit", 0.9, 0.8),
        (TREES_OF_FEW, "ensemble", 0.9, 0.8),
    ],
    ids=["knn", "xgboost", "ensemble of xgboost"],
)
def test_sets_of_few_patients_without_signal_hold_the_true_class(
    family: HeadFamily, final: AskedFinal, least: float, least_of_most: float
) -> None:
    """On the mean, and not far below in a data set where the folds' heads and that of all rows could part."""
    rates = np.array([_coverage_without_signal(family, seed, final=final) for seed in range(20)])
    assert rates.mean() > least
    assert np.quantile(rates, 0.1) > least_of_most


def _coverage_without_signal(
    family: HeadFamily, seed: int, *, final: AskedFinal, patients: int = 56, evaluated: int = 400
) -> float:
    """Return the share of fresh patients whose class is in their set at 90 %, by a head of random labels."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(patients + evaluated, 12)).astype(np.float32)
    y = generator.permutation(np.arange(patients) % 3)
    rows = UnitImages(
        X=X[:patients],
        metadata={},
        unit_of_row=np.arange(patients),
        y=y[:, None],
        groups=np.arange(patients),
    )
    inputs = [HeadInputs("mean-probability", ())]
    repeats = 2 if final == "ensemble" else None
    fitted = fit(
        rows,
        family,
        TASK,
        inputs=inputs,
        folds=5,
        class_weights="none",
        seed=seed,
        final=final,
        repeats=repeats,
    )
    stated = fitted.cut_probabilities[:, 0]
    sets = conformal_sets(stated, y, np.arange(patients), classes=TASK.classes, coverage=0.9)
    scores = fitted.predictor.scores(X[patients:], np.arange(evaluated), n_units=evaluated, metadata={})
    members = sets.members(fitted.predictor.probabilities(scores)[:, 0])
    return float(members[np.arange(evaluated), np.arange(evaluated) % 3].mean())
