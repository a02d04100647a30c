"""The id of a run: equal for equal inputs, another for everything that could change the result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embedstore.view import MISSING, Source, View
from heads.estimators.logistic import LogisticFamily
from heads.estimators.zeroshot import ZeroShotFamily, zeroshot_head
from heads.protocol.decided_by import decided_by, id_of
from heads.protocol.options import ProbeOptions
from tests.views import make_view


def run_id(view: View | None = None, grid: Any = None, **options: Any) -> str:
    asked = ProbeOptions(**options)
    taken = asked.take(make_view() if view is None else view)
    return id_of(decided_by(taken, asked, asked.grid(grid)))


def changed(**arrays: Any) -> View:
    """Return the view with one cell of an array changed."""
    view = make_view()
    for name, value in arrays.items():
        array = getattr(view, name).copy()
        array[0] = value
        view = replace(view, **{name: array})
    return view


@pytest.mark.parametrize(
    "view",
    [
        changed(X=0.5),
        changed(patients="another"),
        changed(unit_ids="another"),
        changed(image_ids="another"),
        changed(content_sha256=0),
        changed(y=MISSING),
        changed(splits="test"),
        replace(make_view(), excluded={}),
        replace(make_view(), subgroups={}),
        replace(make_view(), metadata={"anatomy": np.full(len(make_view().image_ids), "hand")}),
        replace(make_view(), task=replace(make_view().task, primary_metric="kappa")),
        replace(make_view(), identity=replace(make_view().identity, weights_sha256="0" * 64)),
    ],
)
def test_other_data_is_another_run(view: View) -> None:
    assert run_id(view) != run_id()


@pytest.mark.parametrize(
    "options",
    [
        {"head": "knn"},
        {"folds": 4},
        {"draws": 10},
        {"seed": 1},
        {"coverage": 0.8},
        {"class_weights": "balanced"},
        {"pooling": "max-vector"},
        {"select_inputs": True},
        {"learning_curve": True},
        {"cross_validate": True},
        {"grid": LogisticFamily(strengths=(1.0,))},
    ],
)
def test_other_options_are_another_run(options: dict[str, Any]) -> None:
    assert run_id(**options) != run_id()


def test_what_changes_no_result_changes_no_id() -> None:
    view = make_view()
    assert run_id() == run_id()
    # Where it lies, a default that is spelled out, the device that auto is here, a refusal that does not happen.
    assert run_id(replace(view, sources=(Source("other.store", "mura", "x"),))) == run_id()
    assert run_id(pooling=view.task.pooling, targets=view.task.targets) == run_id()
    assert run_id(strict_targets=True) == run_id()
    assert run_id(device="cpu") == run_id()
    wider = replace(view, patients=view.patients.astype("<U90"))
    assert run_id(wider) == run_id()


def test_the_words_that_a_zero_shot_head_compares_with_are_part_of_it() -> None:
    texts = [np.eye(2, 6), np.eye(2, 6)[::-1]]
    ids = {run_id(grid=ZeroShotFamily((zeroshot_head(text),)), head="zeroshot") for text in texts}
    assert len(ids) == 2


def test_texts_cannot_be_cut_elsewhere_to_the_same_id() -> None:
    one, other = changed(unit_ids="a\0b"), changed(unit_ids="a")
    assert run_id(one) != run_id(other)
