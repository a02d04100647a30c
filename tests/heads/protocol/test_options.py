"""Options of a probe: what cannot be meant is refused, and a view is cut to what was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedstore.errors import UsageError
from embedstore.view import View
from heads.estimators.logistic import LogisticFamily
from heads.inputs.input_ways import HeadInputs
from heads.protocol.options import ProbeOptions, options_of
from heads.protocol.probe import probe
from tests.views import make_view


@pytest.fixture
def view() -> View:
    view = make_view(targets=("finding", "other"))
    cells = np.full(len(view.image_ids), "a")
    return replace(view, metadata={"site": cells, "scanner": cells})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coverage": 1.0}, "coverage must be above 0 and below 1; found 1.0"),
        ({"coverage": 0.0}, "found 0.0"),
        ({"draws": 0}, "draws must be 1 or more and folds 2 or more; found draws=0, folds=5"),
        ({"folds": 1}, "found draws=2000, folds=1"),
        ({"draws": "10"}, "draws must be a whole number; found '10'"),
        ({"folds": 2.5}, "folds must be a whole number; found 2.5"),
        ({"seed": "a"}, "seed must be a whole number; found 'a'"),
        ({"coverage": "0.9"}, "coverage must be a number; found '0.9'"),
        ({"targets": "L4"}, r"targets must be a sequence of names; found 'L4': write \['L4'\]"),
        ({"with_columns": "site"}, "with_columns must be a sequence of names"),
        ({"pooling": "median"}, "pooling must be one of None, .*max-vector.*; found 'median'"),
        ({"class_weights": "heavy"}, "class_weights must be one of none, balanced, task; found 'heavy'"),
        ({"select_inputs": True, "pooling": "max-vector"}, "select_inputs=True chooses the pooling"),
        ({"inputs": [HeadInputs("max-vector")], "pooling": "max-vector"}, "leave pooling='max-vector' out"),
        ({"inputs": [HeadInputs("max-vector")], "select_inputs": True}, "chooses among all ways"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProbeOptions(**changes)


def test_a_string_is_the_name_of_a_head_with_the_usual_options() -> None:
    assert options_of("knn") == ProbeOptions(head="knn")
    given = ProbeOptions(seed=4)
    assert options_of(given) is given


def test_a_view_is_cut_to_targets_and_columns_and_may_lose_its_split(view: View) -> None:
    assert ProbeOptions().take(view) is view
    taken = ProbeOptions(targets=["other"], with_columns=["scanner"], cross_validate=True).take(view)
    assert taken.task.targets == ("other",)
    np.testing.assert_array_equal(taken.y[:, 0], view.y[:, 1])
    assert list(taken.metadata) == ["scanner"]
    assert set(taken.splits) == {""}
    assert ProbeOptions(with_columns=()).take(view).metadata == {}
    again = ProbeOptions(targets=["other"], with_columns=["scanner"], cross_validate=True).take(taken)
    assert again.y.tobytes() == taken.y.tobytes()


def test_a_column_that_the_view_does_not_hold_is_named_with_those_that_it_does(view: View) -> None:
    with pytest.raises(UsageError, match=r"holds no column 'age'; it holds site, scanner: load it"):
        ProbeOptions(with_columns=["site", "age"]).take(view)


def test_the_ways_are_one_some_or_all(view: View) -> None:
    everything = ("site", "scanner")
    assert ProbeOptions().ways(view) == (HeadInputs(view.task.pooling, everything),)
    assert ProbeOptions(pooling="max-vector").ways(view) == (HeadInputs("max-vector", everything),)
    some = [HeadInputs("mean-vector", ("site",))]
    assert ProbeOptions(inputs=some).ways(view) == tuple(some)
    # Three poolings, each without and with metadata.
    assert len(ProbeOptions(select_inputs=True).ways(view)) == 6


def test_a_preset_needs_the_grid_that_it_names(view: View) -> None:
    with pytest.raises(UsageError, match=r"preset_family\('google-lr'\)"):
        probe(view, ProbeOptions(preset="google-lr"))


def test_a_run_says_what_it_was_told_and_what_followed_from_the_data(view: View) -> None:
    grid = LogisticFamily(strengths=(0.1,), normalisations=("none",))
    options = ProbeOptions(
        preset="google-lr", targets=["other"], with_columns=[], draws=20, seed=2, learning_curve=True
    )
    result = probe(view, options, family=grid)
    assert result.settings.to_json() == {
        "head": "logistic",
        "mode": "official split",
        "fit_splits": ["train"],
        "evaluation_split": "valid",
        "pooling": view.task.pooling,
        "class_weights": "none",
        "folds": 5,
        "folds_asked": 5,
        "draws": 20,
        "seed": 2,
        "shots": 0,
        "shared_heads": [],
        "coverage": 0.9,
        "final": "refit",
        "repeats": 0,
        "preset": "google-lr",
        "metadata": [],
    }
    assert result.view.task.targets == ("other",)
    assert result.learning_curve is not None
    # All patients are the last point of the curve, and the run itself.
    last = result.learning_curve.points[-1]
    assert last.metrics["log_loss"] == result.evaluation.overall["log_loss"]
    assert list(result.seconds) == ["fit", "outliers", "predict", "evaluate", "learning_curve"]
