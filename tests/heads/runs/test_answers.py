"""Predictions: what they state, that they agree with the run, and that units do not disturb each other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.view import View
from heads.estimators.logistic import LogisticFamily
from heads.runs.answers import is_unlike, predict_units
from heads.runs.run import Run
from heads.runs.run_files import save_run
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.1, 10.0), normalisations=("none",))


@pytest.fixture(scope="module")
def view() -> View:
    return make_view()


@pytest.fixture(scope="module")
def run(view: View, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return save_run(tmp_path_factory.mktemp("predict") / "run", probed(view, draws=20, family=GRID))


def _predict(run: Run, view: View, **options) -> list[dict]:
    return predict_units(run, view.X, view.unit_of_image, view.unit_ids.tolist(), **options)


def test_a_prediction_says_what_the_design_promises_and_is_plain_json(run: Run, view: View) -> None:
    found = _predict(run, view)[0]
    assert set(found) >= {
        "unit_id",
        "images",
        "targets",
        "ood_p_value",
        "conformal_coverage",
        "run_id",
        "notice",
    }
    answer = found["targets"]["finding"]
    assert set(answer) == {"probabilities", "decision", "threshold", "conformal_set", "prevalence"}
    assert set(found["ood_p_value"]) == {"knn", "mahalanobis"}
    assert answer["prevalence"]["source"] == "training"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_sets_are_those_of_the_run(run: Run, view: View) -> None:
    kept = {row["unit_id"]: row for row in run.predictions.to_pylist() if row["role"] == "evaluation"}
    found = {entry["unit_id"]: entry["targets"]["finding"] for entry in _predict(run, view)}
    assert kept
    for unit_id, row in kept.items():
        assert found[unit_id]["conformal_set"] == row["conformal_set"]
    held = [row["label"] in row["conformal_set"] for row in kept.values()]
    stated = run.document["conformal_sets"]["finding"]
    assert stated["coverage"]["value"] == pytest.approx(np.mean(held))
    assert stated["size"]["value"] == pytest.approx(
        np.mean([len(row["conformal_set"]) for row in kept.values()])
    )
    assert 0.8 < np.mean(held) <= 1


def test_a_unit_is_predicted_alike_alone_and_among_others(run: Run, view: View) -> None:
    everyone = _predict(run, view)
    for unit in (0, 7, 30):
        images = view.unit_of_image == unit
        alone = predict_units(
            run, view.X[images], np.zeros(images.sum(), np.int64), [str(view.unit_ids[unit])]
        )
        assert alone == [everyone[unit]]


def test_a_lower_prevalence_lowers_probabilities_and_leaves_sets_and_youden_decisions(
    run: Run, view: View
) -> None:
    usual, rare = (_predict(run, view, threshold="youden", prevalence=share) for share in (None, "0.02"))
    for one, other in zip(usual, rare, strict=True):
        before, after = one["targets"]["finding"], other["targets"]["finding"]
        assert after["probabilities"]["abnormal"] < before["probabilities"]["abnormal"]
        assert after["threshold"] < before["threshold"]
        assert after["decision"] == before["decision"]
        assert after["conformal_set"] == before["conformal_set"]
        assert after["prevalence"]["assumed"]["abnormal"] == 0.02
        assert after["prevalence"]["source"] == "given"
    halves = _predict(run, view, prevalence="0.02")
    assert {entry["targets"]["finding"]["threshold"] for entry in halves} == {0.5}


def test_a_prevalence_can_be_estimated_from_the_units(run: Run, view: View) -> None:
    stated = _predict(run, view, prevalence="em")[0]["targets"]["finding"]["prevalence"]
    assert stated["source"] == "em"
    assert stated["units"] == len(view.unit_ids)
    assert stated["assumed"]["abnormal"] == pytest.approx((view.y == 1).mean(), abs=0.1)


def test_strangers_are_told_from_units_of_the_population(run: Run, view: View) -> None:
    evaluated = view.splits == "valid"
    found = _predict(run, view)
    usual = [entry["ood_p_value"] for entry, kept in zip(found, evaluated, strict=True) if kept]
    far = predict_units(
        run, np.full((1, 6), 50.0, np.float32) * [1, -1, 1, -1, 1, -1], np.zeros(1, int), ["far"]
    )
    for method in ("knn", "mahalanobis"):
        assert np.mean([entry[method] for entry in usual]) > 0.3
        assert far[0]["ood_p_value"][method] < 0.1


def test_images_learned_from_are_known_again_under_another_name(run: Run, view: View) -> None:
    others = [f"elsewhere/{unit}" for unit in view.unit_ids]
    found = predict_units(run, view.X, view.unit_of_image, others, content_sha256=view.content_sha256)
    assert [entry["learned_from"] for entry in found] == (view.splits == "train").tolist()
    fresh = np.random.default_rng(0).integers(0, 256, view.content_sha256.shape, np.uint8)
    found = predict_units(run, view.X, view.unit_of_image, others, content_sha256=fresh)
    assert not any(entry["learned_from"] for entry in found)


def test_sets_that_were_refused_are_null(tmp_path) -> None:
    view = make_view()
    run = save_run(tmp_path / "run", probed(view, draws=20, family=GRID, coverage=0.99))
    assert "need 99 of every class" in run.document["heads"][0]["conformal"]["refused"]
    assert run.document["conformal_sets"]["finding"] == {}
    assert _predict(run, view)[0]["targets"]["finding"]["conformal_set"] is None


def test_a_wrong_threshold_or_prevalence_is_named(run: Run, view: View) -> None:
    with pytest.raises(UsageError, match=r"threshold must be one of half, .*youden"):
        _predict(run, view, threshold="best")
    with pytest.raises(UsageError, match="`prevalence` must be a number"):
        _predict(run, view, prevalence="2")


def test_p_values_of_several_methods_are_joined_by_simes():
    # p(1) <= 0.05 / 2 or p(2) <= 0.05, whichever method each is of.
    assert [is_unlike(pair) for pair in ([0.025, 1.0], [1.0, 0.025], [0.05, 0.05], [0.05, 0.051])] == [
        True,
        True,
        True,
        False,
    ]
    assert not is_unlike([0.026, 1.0])
    assert is_unlike([0.05])
    assert not is_unlike([])
