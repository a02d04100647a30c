"""More patients, better heads: sizes, repeats, intervals, and what is too few."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import UsageError
from heads.estimators.logistic import LogisticFamily
from heads.protocol.learning_curve import learning_curve
from heads.protocol.options import ProbeOptions
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.01, 0.1), normalisations=("none",))


def test_sizes_double_up_to_all_patients() -> None:
    view = make_view(patients=300)
    curve = learning_curve(view, ProbeOptions(draws=20), repeats=2, family=GRID)
    total = len(np.unique(view.patients[view.splits == "train"]))
    assert [point.patients for point in curve.points] == [64, 128, total]
    assert [point.repeats for point in curve.points] == [2, 2, 1]
    assert curve.skipped == {}
    # What more would bring: better than the law says of all, and all of it in run.json.
    assert [(beyond.times, beyond.patients) for beyond in curve.extrapolated] == [
        (2, 2 * total),
        (4, 4 * total),
    ]
    twice, four_times = curve.extrapolated
    for name in ("auroc", "log_loss"):
        assert 0 <= twice.gains[name].value <= four_times.gains[name].value
        assert four_times.gains[name].low <= four_times.gains[name].value <= four_times.gains[name].high
    assert twice.metrics["auroc"].value + (
        four_times.gains["auroc"].value - twice.gains["auroc"].value
    ) == pytest.approx(four_times.metrics["auroc"].value)
    assert twice.metrics["log_loss"].value - (
        four_times.gains["log_loss"].value - twice.gains["log_loss"].value
    ) == pytest.approx(four_times.metrics["log_loss"].value)
    assert [entry["times"] for entry in curve.to_json()["extrapolated"]] == [2, 4]


def test_more_patients_have_a_smaller_loss_and_a_narrower_interval() -> None:
    view = make_view(patients=700, dim=40, signal=1.5)
    curve = learning_curve(view, ProbeOptions(draws=100), repeats=4, sizes=(24, 400), family=GRID)
    few, many = curve.points
    assert few.metrics["log_loss"].value > many.metrics["log_loss"].value + 0.02
    widths = [point.metrics["auroc"].high - point.metrics["auroc"].low for point in (few, many)]
    assert widths[0] > widths[1]


def test_all_patients_give_the_run_itself() -> None:
    view = make_view()
    curve = learning_curve(view, ProbeOptions(draws=30), sizes=(10_000,), family=GRID)
    result = probed(view, draws=30, family=GRID)
    assert curve.points[0].patients == len(np.unique(view.patients[view.splits == "train"]))
    assert curve.extrapolated == ()
    for name in ("auroc", "log_loss"):
        assert curve.points[0].metrics[name] == result.evaluation.overall[name]


def test_without_a_split_every_size_is_evaluated_on_the_same_patients() -> None:
    view = make_view(patients=150, valid_share=0)
    curve = learning_curve(view, ProbeOptions(draws=20), repeats=2, family=GRID)
    n = {point.metrics["auroc"].n for point in curve.points}
    assert len(n) == 1
    assert 0.1 < n.pop() / len(view.unit_ids) < 0.3
    assert curve.points[-1].patients < 150


def test_too_few_patients_are_skipped_with_the_reason() -> None:
    curve = learning_curve(
        make_view(), ProbeOptions(draws=20), repeats=2, sizes=(4, 60), family=GRID, metrics=("accuracy",)
    )
    assert list(curve.points[0].metrics) == ["auroc", "log_loss", "accuracy"]
    assert [point.patients for point in curve.points] == [60]
    assert "fewer than the 5 folds" in curve.skipped[4] or "every training label" in curve.skipped[4]
    assert curve.to_json()["skipped"].keys() == {"4"}


def test_the_seed_decides() -> None:
    view = make_view()
    one, again, other = (
        learning_curve(view, ProbeOptions(draws=20, seed=seed), repeats=2, sizes=(40,), family=GRID)
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one.points[0].metrics != other.points[0].metrics


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"1 or more; found repeats=5, sizes=\(0,\)"):
        learning_curve(make_view(), sizes=(0,), family=GRID)
    with pytest.raises(UsageError, match="Did you mean 'kappa'"):
        learning_curve(make_view(), metrics=("kapa",), family=GRID)
