"""Images with their units, and selection in several lots of targets."""

from __future__ import annotations

import numpy as np
import pytest

from heads.estimators.logistic import LogisticFamily
from heads.estimators.neighbors import NeighborsFamily
from heads.inputs.unit_images import UnitImages
from heads.protocol import select_inputs
from heads.protocol.leakage import leakage_groups
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
