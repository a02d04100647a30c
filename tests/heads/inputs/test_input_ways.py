"""Metadata and poolings through the whole protocol: what a head gets, how that is chosen, and what must not leak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.task import POOLINGS
from embedstore.view import View
from heads.base import OutOfFold
from heads.estimators.logistic import LogisticFamily
from heads.estimators.neighbors import NeighborsFamily
from heads.estimators.zeroshot import ZeroShotFamily, zeroshot_head
from heads.inputs.input_ways import HeadInputs, all_inputs, named_inputs
from heads.inputs.leakage import leakage_groups
from heads.inputs.unit_images import UnitImages
from heads.protocol.fitting import fit
from heads.protocol.learning_curve import learning_curve
from heads.protocol.options import ProbeOptions
from heads.protocol.probe_result import ProbeResult
from heads.runs.answers import predict_units
from heads.runs.run_files import load_run, save_run
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.1, 10.0), normalisations=("none", "l2"))
NEIGHBORS = NeighborsFamily(ks=(10,), temperatures=(0.07,))
WAYS = (HeadInputs("mean-probability"), HeadInputs("max-vector", ("site",)))


def with_site(view: View, *, agreement: float = 0.8, seed: int = 0) -> View:
    """Add a column that agrees with the label of that share of the units."""
    agrees = np.random.default_rng(seed).random(len(view.y)) < agreement
    site = np.where(agrees, view.y[:, 0], 1 - view.y[:, 0])
    return replace(view, metadata={"site": np.array(["north", "south"])[site][view.unit_of_image]})


@pytest.fixture(scope="module")
def view() -> View:
    return with_site(make_view(patients=200))


@pytest.fixture(scope="module")
def result(view: View) -> ProbeResult:
    return probed(view, draws=20, family=GRID)


@pytest.mark.parametrize(("head", "family"), [("logistic", GRID), ("knn", NEIGHBORS)])
def test_a_head_learns_from_metadata_what_the_images_do_not_say(head: str, family: object) -> None:
    blind = make_view(patients=400, signal=0.0)
    told = with_site(blind, agreement=0.9)
    without, beside = (
        probed(each, head, draws=20, family=family).evaluation.overall["auroc"].value
        for each in (blind, told)
    )
    # A column that agrees with 90 % of the labels orders pairs of units with an AUROC of 0.9; images say nothing.
    assert without < 0.6
    assert 0.83 < beside < 0.97


def test_settings_and_run_say_what_the_head_gets(result: ProbeResult, tmp_path: Path) -> None:
    assert result.settings.inputs.metadata == ("site",)
    document = save_run(tmp_path / "run", result).document
    assert document["settings"]["metadata"] == ["site"]
    assert document["inputs"]["chosen"] == {"pooling": "mean-probability", "metadata": ["site"]}
    assert document["inputs"]["blocks"]["levels"] == [["north", "south"]]
    assert document["inputs"]["tried"] == []


def test_predicting_again_with_the_metadata_gives_the_test_probabilities_bit_for_bit(
    view: View, result: ProbeResult, tmp_path: Path
) -> None:
    run = load_run(save_run(tmp_path / "run", result).folder)
    everyone = run.predict(view.X, view.unit_of_image, metadata=view.metadata)
    assert everyone[view.splits == "valid"].tobytes() == result.evaluated.probabilities.tobytes()
    other = {"site": np.full(len(view.X), "north")}
    assert run.predict(view.X, view.unit_of_image, metadata=other).tobytes() != everyone.tobytes()
    with pytest.raises(UsageError, match=r"needs it of every image: site \(known: north, south\)"):
        run.predict(view.X, view.unit_of_image)
    stated = predict_units(
        run, view.X, view.unit_of_image, view.unit_ids.tolist(), metadata={"site": view.metadata["site"]}
    )
    found = [entry["targets"]["finding"]["probabilities"]["abnormal"] for entry in stated]
    assert found == everyone[:, 0, 1].tolist()


def test_a_prediction_states_the_metadata_that_it_rests_on(result: ProbeResult, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", result)
    site = {"site": np.array(["south", "west", "north", "south", "south"])}
    stated = predict_units(
        run, np.zeros((5, 6), np.float32), np.array([0, 1, 0, 0, 1]), ["a", "b"], metadata=site
    )
    assert [entry["metadata"] for entry in stated] == [
        {"site": ["north", "south"]},
        {"site": ["south", "west"]},
    ]


def test_strangeness_is_that_of_the_images_alone(view: View, result: ProbeResult) -> None:
    alone = probed(replace(view, metadata={}), draws=20, family=GRID)
    for name, array in result.outliers.to_arrays().items():
        assert array.tobytes() == alone.outliers.to_arrays()[name].tobytes()


def test_the_evaluated_images_teach_neither_levels_nor_scale(view: View, result: ProbeResult) -> None:
    evaluated = (view.splits == "valid")[view.unit_of_image]
    site = np.where(evaluated, "west", view.metadata["site"])
    X = np.where(evaluated[:, None], 100, 1) * view.X
    moved = probed(replace(view, X=X, metadata={"site": site}), draws=20, family=GRID)
    assert moved.fitted.predictor.blocks == result.fitted.predictor.blocks
    for one, other in zip(moved.fitted.predictor.heads, result.fitted.predictor.heads, strict=True):
        for name, array in one.to_arrays().items():
            assert array.tobytes() == other.to_arrays()[name].tobytes()


def test_ways_are_every_pooling_without_and_with_metadata(view: View) -> None:
    ways = all_inputs(view)
    assert {way.pooling for way in ways} == set(POOLINGS)
    assert [way.metadata for way in ways] == [()] * 3 + [("site",)] * 3
    task = replace(view.task, pooling="max-vector")
    assert all_inputs(replace(view, task=task))[0] == HeadInputs("max-vector")
    assert [way.metadata for way in all_inputs(replace(view, metadata={}))] == [()] * 3


def test_poolings_are_not_tried_where_every_unit_has_one_image() -> None:
    view = make_view()
    first = np.unique(view.unit_of_image, return_index=True)[1]
    single = replace(
        view,
        X=view.X[first],
        image_ids=view.image_ids[first],
        content_sha256=view.content_sha256[first],
        unit_of_image=np.arange(len(first)),
    )
    assert all_inputs(single) == (HeadInputs("mean-probability"),)


def test_the_way_with_the_smallest_mean_loss_is_chosen_and_is_what_naming_it_gives(view: View) -> None:
    ways = all_inputs(view)
    chosen = probed(view, inputs=ways, draws=20, family=GRID)
    losses = []
    for way in ways:
        named = replace(view, metadata={column: view.metadata[column] for column in way.metadata})
        alone = probed(named, pooling=way.pooling, draws=20, family=GRID)
        losses.append(alone.fitted.losses.min(axis=0).mean())
        if way == chosen.fitted.inputs:
            assert alone.evaluated.probabilities.tobytes() == chosen.evaluated.probabilities.tobytes()
            assert alone.settings.to_json() == chosen.settings.to_json()
    assert [trial.log_loss for trial in chosen.fitted.trials] == pytest.approx(losses, rel=1e-12)
    assert chosen.fitted.inputs == ways[int(np.argmin(losses))]
    assert chosen.fitted.inputs.metadata == ("site",)


def test_metadata_that_has_nothing_to_do_with_the_label_is_not_chosen() -> None:
    view = make_view(patients=300)
    # Of fifty scanners: nearest neighbours would be looked for among the few images of the same one.
    scanner = np.random.default_rng(0).integers(0, 50, len(view.X)).astype(np.str_)
    view = replace(view, metadata={"scanner": scanner})
    ways = (HeadInputs("mean-probability", ("scanner",)), HeadInputs("mean-probability"))
    result = probed(view, "knn", inputs=ways, draws=20, family=NEIGHBORS)
    assert result.fitted.trials[0].log_loss > result.fitted.trials[1].log_loss + 0.02
    assert result.settings.inputs.metadata == ()
    assert result.fitted.predictor.blocks is None


def test_in_cross_validation_every_fold_chooses_and_learns_without_what_it_scores() -> None:
    view = with_site(make_view(patients=120, valid_share=0))
    # One patient alone has a level of its own.
    stranger = view.patients == view.patients[0]
    site = np.where(stranger[view.unit_of_image], "east", view.metadata["site"])
    view = replace(view, metadata={"site": site})
    result = probed(view, inputs=WAYS, draws=20, family=GRID, seed=4)
    everyone = UnitImages.of_view(view, leakage_groups(view))
    with_metadata = 0
    for fold in range(5):
        left_out = result.evaluated.fold == fold
        outer = fit(
            everyone.take(~left_out),
            GRID,
            view.task,
            inputs=WAYS,
            folds=5,
            class_weights="none",
            seed=5 + fold,
        )
        images = left_out[view.unit_of_image]
        units = (np.cumsum(left_out) - 1)[view.unit_of_image[images]]
        scores = outer.predictor.scores(
            view.X[images],
            units,
            n_units=int(left_out.sum()),
            metadata={"site": site[images]},
        )
        assert scores.tobytes() == result.evaluated.scores[left_out].tobytes()
        if outer.predictor.blocks is not None:
            with_metadata += 1
            assert ("east" in outer.predictor.blocks.levels[0]) == (not left_out[stranger].any())
    assert with_metadata > 0


def test_all_patients_of_a_learning_curve_give_the_run_itself(view: View) -> None:
    result = probed(view, inputs=WAYS, draws=30, family=GRID)
    curve = learning_curve(view, ProbeOptions(inputs=WAYS, draws=30), sizes=(10_000,), family=GRID)
    assert curve.points[0].metrics["log_loss"] == result.evaluation.overall["log_loss"]


def test_a_run_names_all_that_was_tried_and_predicts_with_what_was_chosen(view: View, tmp_path: Path) -> None:
    result = probed(view, inputs=WAYS, draws=20, family=GRID)
    run = load_run(save_run(tmp_path / "run", result).folder)
    assert [(way["pooling"], way["metadata"]) for way in run.document["inputs"]["tried"]] == [
        ("mean-probability", []),
        ("max-vector", ["site"]),
    ]
    assert run.document["inputs"]["chosen"]["pooling"] == run.predictor.pooling
    assert run.document["settings"]["pooling"] == run.predictor.pooling
    again = run.predict(view.X, view.unit_of_image, metadata=view.metadata)
    assert again[view.splits == "valid"].tobytes() == result.evaluated.probabilities.tobytes()


def test_words_are_compared_with_vectors_alone(view: View) -> None:
    words = ZeroShotFamily((zeroshot_head(np.eye(2, 6)),))
    probed(replace(view, metadata={}), "zeroshot", draws=2, family=words)
    with pytest.raises(
        UsageError, match=r"zeroshot compares image vectors of 6 numbers .* no metadata \(`with_columns`\)"
    ):
        probed(view, "zeroshot", draws=2, family=words)


def test_too_many_levels_stop_the_probe_before_anything_is_fitted(view: View) -> None:
    class Untouched(LogisticFamily):
        def out_of_fold(self, *arguments: object, **options: object) -> OutOfFold:
            raise AssertionError("the grid was searched")

    told = replace(view, metadata={"device": np.arange(len(view.X)).astype(np.str_)})
    with pytest.raises(UsageError, match=r"`with_columns` device: \d+ different values"):
        probed(told, inputs=all_inputs(told), family=Untouched())


def test_inputs_that_make_no_sense_are_refused(view: View) -> None:
    with pytest.raises(UsageError, match="pooling='max-vector' has no meaning"):
        named_inputs(view, "max-vector", WAYS)
    with pytest.raises(
        UsageError, match=r"metadata of the view \(site\); found 1 choices, unknown: \['age'\]"
    ):
        named_inputs(view, None, [HeadInputs("max-vector", ("age",))])
    with pytest.raises(UsageError, match="found 0 choices"):
        named_inputs(view, None, [])
    with pytest.raises(UsageError, match="by its name the column holds the answer"):
        probed(replace(view, metadata={"finding": view.metadata["site"]}), family=GRID)
