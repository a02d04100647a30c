"""Attention through the protocol and a run: what predicts, which images mattered, and positions beside vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.view import View
from heads.ensemble import EnsembleHead
from heads.estimators.attention import AttentionFamily, AttentionHead
from heads.protocol.options import ProbeOptions
from heads.runs.answers import HEAVIEST, predict_units
from heads.runs.run import Run
from heads.runs.run_files import load_run, save_run
from tests.views import make_view, probed

GRID = AttentionFamily(({"hidden": 4, "epochs": 4, "minimum_steps": 40},))


@pytest.fixture(scope="module")
def view() -> View:
    return make_view(patients=60)


@pytest.fixture(scope="module")
def run(view: View, tmp_path_factory: pytest.TempPathFactory) -> Run:
    result = probed(view, "attention", family=GRID, draws=20, folds=3, repeats=2)
    saved = save_run(tmp_path_factory.mktemp("attention") / "run", result)
    again = load_run(saved.folder)
    probabilities = again.predict(view.X, view.unit_of_image)
    of_split = probabilities[view.splits == "valid"]
    assert of_split.tobytes() == result.evaluated.probabilities.tobytes()
    return again


def test_networks_of_the_folds_answer_together(run: Run) -> None:
    (head,) = run.predictor.heads
    assert isinstance(head, EnsembleHead)
    assert [type(member) for member in head.members] == [AttentionHead] * 6
    assert run.document["settings"]["final"] == "ensemble"
    assert run.document["metrics"]["auroc"]["value"] > 0.7


def test_a_prediction_names_the_images_that_had_most_to_say(run: Run, view: View) -> None:
    answers = predict_units(
        run, view.X, view.unit_of_image, view.unit_ids.tolist(), image_ids=view.image_ids.tolist()
    )
    (head,) = run.predictor.heads
    weights = head.image_weights(view.X, view.unit_of_image, len(view.unit_ids))
    assert weights is not None
    several = 0
    for unit, answer in enumerate(answers):
        named = answer["targets"]["finding"]["image_weights"]
        own = np.flatnonzero(view.unit_of_image == unit)
        order = own[np.argsort(-weights[own])]
        assert [entry["image"] for entry in named] == view.image_ids[order].tolist()
        assert [entry["weight"] for entry in named] == weights[order].tolist()
        assert sum(entry["weight"] for entry in named) == pytest.approx(1)
        several += len(named) > 1
    assert several > 10
    (alone,) = predict_units(run, view.X[:1], [0], ["one"])
    assert alone["targets"]["finding"]["image_weights"] == [{"image": 0, "weight": 1.0}]


def test_of_a_long_stack_the_heaviest_images_are_named(run: Run) -> None:
    stack = np.random.default_rng(0).normal(size=(5000, 6)).astype(np.float32)
    (answer,) = predict_units(run, stack, np.zeros(5000, int), ["stack"])
    named = answer["targets"]["finding"]["image_weights"]
    assert len(named) == HEAVIEST
    (weights,) = run.predictor.image_weights(stack, np.zeros(5000, np.int64))
    assert weights is not None
    assert {entry["image"] for entry in named} == set(np.argsort(-weights)[:HEAVIEST].tolist())
    assert 0 < sum(entry["weight"] for entry in named) < 1


def test_an_image_that_does_not_speak_for_the_target_has_no_weight(run: Run, view: View) -> None:
    X, units = view.X[:6], np.array([0, 0, 1, 1, 2, 2])
    speaking = np.array([[True], [False], [True], [True], [False], [False]])
    (weights,) = run.predictor.image_weights(X, units, image_of_target=speaking)
    assert weights is not None
    assert weights[[0, 1, 4, 5]].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert weights[2:4].sum() == pytest.approx(1)
    answers = predict_units(run, X, units, ["a", "b", "c"], image_of_target=speaking)
    named = [answer["targets"]["finding"]["image_weights"] for answer in answers]
    assert [[entry["image"] for entry in each] for each in named][::2] == [[0], []]


def test_a_unit_without_an_image_is_refused(run: Run, view: View) -> None:
    with pytest.raises(UsageError, match="each of 2 units needs an image; 1 have none"):
        run.predict(view.X[:2], [0, 0], n_units=2)


def test_other_heads_weigh_no_images(view: View, tmp_path: Path) -> None:
    other = save_run(tmp_path / "run", probed(view, "logistic", draws=2, folds=3))
    (answer,) = predict_units(other, view.X[:2], [0, 0], ["one"])
    assert "image_weights" not in answer["targets"]["finding"]


def test_it_gets_images_though_the_task_pools_vectors(view: View) -> None:
    pooled = replace(view, task=replace(view.task, pooling="mean-vector"))
    asked = ProbeOptions(head="attention")
    assert [way.pooling for way in asked.ways(pooled)] == ["mean-probability"]
    assert [way.pooling for way in replace(asked, pooling="max-vector").ways(pooled)] == ["max-vector"]
    assert [way.pooling for way in ProbeOptions(head="logistic").ways(pooled)] == ["mean-vector"]
    result = probed(view, "attention", family=GRID, draws=2, folds=3, repeats=2, pooling="mean-vector")
    units = np.arange(len(view.unit_ids))
    assert result.fitted.predictor.image_weights(view.X[: len(units)], units) == [None]


def test_columns_say_where_images_lie_and_unknown_ones_are_answered(view: View, tmp_path: Path) -> None:
    plane = np.array(["axial", "sagittal", ""])[np.arange(len(view.X)) % 3]
    placed = replace(view, metadata={"plane": plane})
    result = probed(placed, "attention", family=GRID, draws=2, folds=3, repeats=2, with_columns=("plane",))
    (head,) = result.fitted.predictor.heads
    assert isinstance(head, EnsembleHead)
    assert {member.get_params()["positions"] for member in head.members} == {3}  # axial, sagittal and unknown
    run = save_run(tmp_path / "run", result)
    for cells in (["axial", "sagittal"], ["", "coronal"]):
        (answer,) = predict_units(run, view.X[:2], [0, 0], ["one"], metadata={"plane": cells})
        assert sum(
            entry["weight"] for entry in answer["targets"]["finding"]["image_weights"]
        ) == pytest.approx(1)
        assert 0 < answer["targets"]["finding"]["probabilities"]["abnormal"] < 1


def test_the_outer_folds_of_a_task_without_a_split_hold(view: View) -> None:
    """Cross-validated with two targets, one of which lacks labels."""
    several = make_view(patients=40, targets=("one", "two"), valid_share=0)
    y = several.y.copy()
    y[::3, 1] = -1
    result = probed(replace(several, y=y), "attention", family=GRID, draws=2, folds=2, repeats=2)
    assert np.isfinite(result.evaluated.probabilities[:, 0]).all()
    assert result.evaluation.overall["auroc"].value > 0.6
