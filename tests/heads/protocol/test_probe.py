"""The protocol: nothing leaks, class weights are undone, every option of a task has its way through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from embedstore.errors import DataError, UsageError
from embedstore.view import MISSING
from heads.estimators.logistic import LogisticFamily
from heads.protocol.probe import probe
from heads.scores import probabilities_from_scores
from tests.views import make_view, probed

# Small grids: what is tested here is the protocol, not the solver.
GRID = LogisticFamily(strengths=(1e-3, 0.1, 10.0), normalisations=("none", "standardise"))


def test_labels_without_signal_have_an_auroc_interval_around_one_half() -> None:
    covered = 0
    for seed in range(4):
        result = probed(make_view(signal=0.0, valid_share=0, patients=150, seed=seed), draws=300, family=GRID)
        auroc = result.evaluation.overall["auroc"]
        covered += auroc.low <= 0.5 <= auroc.high
        # Not above chance; where the head calls everybody the same, every draw has a kappa of 0 and no interval.
        assert not result.evaluation.overall["kappa"].low > 0
    assert covered >= 3


def test_signal_is_found_as_often_as_theory_allows() -> None:
    result = probed(make_view(signal=1.5, patients=2000), draws=200, family=GRID)
    # One image has AUROC Phi(1.5 / sqrt 2) = 0.856; studies of one to three images have more.
    auroc = result.evaluation.overall["auroc"]
    assert 0.86 < auroc.value < 0.95
    assert auroc.low < auroc.value < auroc.high


def test_cross_validation_scores_every_unit_once_without_its_patient() -> None:
    view = make_view(valid_share=0)
    result = probed(view, draws=20, family=GRID)
    assert result.settings.mode == "outer cross-validation"
    assert result.evaluated.unit_ids.tolist() == view.unit_ids.tolist()
    assert np.isfinite(result.evaluated.probabilities).all()
    for patient in np.unique(view.patients):
        assert len(np.unique(result.evaluated.fold[view.patients == patient])) == 1


def test_cross_validated_scores_do_not_know_their_own_labels() -> None:
    view = make_view(valid_share=0, patients=60)
    result = probed(view, draws=20, family=GRID)
    left_out = result.evaluated.fold == 0
    y = view.y.copy()
    y[left_out] = 1 - y[left_out]
    # The folds of the other labels are dealt again, so only fitting by hand on the same rows compares.
    inside = ~left_out
    kept = replace(
        view,
        splits=np.where(inside, "train", "valid"),
    )
    flipped = replace(kept, y=y)
    one, other = (probed(each, draws=20, family=GRID, seed=3) for each in (kept, flipped))
    assert one.evaluated.probabilities.tobytes() == other.evaluated.probabilities.tobytes()


def test_the_same_seed_gives_the_same_result_and_another_does_not() -> None:
    view = make_view()
    first, again, other = (probed(view, draws=20, family=GRID, seed=seed) for seed in (1, 1, 2))
    assert first.evaluated.probabilities.tobytes() == again.evaluated.probabilities.tobytes()
    assert first.evaluation.overall == again.evaluation.overall
    assert (first.fitted.folds != other.fitted.folds).any()


def test_class_weights_leave_probabilities_calibrated() -> None:
    view = make_view(patients=1500)
    rare = (view.y[:, 0] == 1) & (np.arange(len(view.y)) % 4 > 0)
    view = replace(view, y=np.where(rare, MISSING, view.y[:, 0])[:, None])
    plain, balanced = (
        probed(view, draws=50, family=GRID, class_weights=rule).evaluation for rule in ("none", "balanced")
    )
    prevalence = (view.y == 1).sum() / (view.y != MISSING).sum()
    assert prevalence < 0.3
    for evaluation in (plain, balanced):
        intercept = evaluation.before_calibration["calibration_intercept"]
        assert abs(intercept.value) < 0.35
    difference = balanced.before_calibration["log_loss"].value - plain.before_calibration["log_loss"].value
    assert abs(difference) < 0.02


def test_vectors_that_are_all_alike_state_the_prevalence() -> None:
    view = make_view(patients=600)
    y = (np.random.default_rng(0).random(len(view.y)) < 0.25).astype(int)[:, None]
    result = probed(replace(view, X=np.zeros_like(view.X), y=y), draws=20, family=GRID)
    prevalence = y[view.splits == "train"].mean()
    assert result.evaluated.probabilities[:, 0, 1] == pytest.approx(prevalence, abs=0.005)
    assert result.evaluation.overall["auroc"].value == 0.5


def test_the_official_rule_of_mura_is_among_the_metrics() -> None:
    result = probed(make_view(), draws=20, family=GRID)
    y, stated = result.evaluated.y[:, 0], probabilities_from_scores(result.evaluated.scores[:, 0])[:, 1]
    table = np.array([[np.sum((y == a) & ((stated >= 0.5) == b)) for b in (0, 1)] for a in (0, 1)])
    agreed = np.trace(table) / table.sum()
    by_chance = (table.sum(0) * table.sum(1)).sum() / table.sum() ** 2
    expected = (agreed - by_chance) / (1 - by_chance)
    assert result.evaluation.before_calibration["kappa"].value == pytest.approx(expected)


@pytest.mark.parametrize("pooling", ["mean-vector", "max-vector"])
def test_vectors_can_be_pooled_before_the_head(pooling: str) -> None:
    result = probed(make_view(), draws=20, family=GRID, pooling=pooling)
    assert result.settings.inputs.pooling == pooling
    assert result.evaluation.overall["auroc"].value > 0.75


def test_an_image_task_has_one_unit_an_image() -> None:
    view = make_view()
    of_image = view.unit_of_image
    images = replace(
        view,
        unit_of_image=np.arange(len(view.X)),
        unit_ids=view.image_ids,
        y=view.y[of_image],
        patients=view.patients[of_image],
        splits=view.splits[of_image],
        subgroups={},
    )
    result = probed(images, draws=20, family=GRID)
    assert len(result.evaluated.unit_ids) == int((images.splits == "valid").sum())


def test_targets_with_missing_labels_are_evaluated_where_they_have_labels() -> None:
    view = make_view(targets=("left", "right"), patients=300)
    y = view.y.copy()
    y[::3, 1] = MISSING
    y[5] = MISSING
    result = probed(replace(view, y=y), draws=20, family=GRID)
    evaluated = (view.splits == "valid") & (y[:, 1] != MISSING)
    assert result.evaluation.by_target["right"]["auroc"].n == int(evaluated.sum())
    both = [result.evaluation.by_target[name]["auroc"].value for name in ("left", "right")]
    assert result.evaluation.overall["auroc"].value == pytest.approx(np.mean(both))
    assert result.excluded["unit without any label"] == 1
    assert result.excluded["failed: unreadable"] == 2


def test_several_classes_have_metrics_and_no_thresholds() -> None:
    view = make_view(classes=("mild", "moderate", "severe"), signal=3.0)
    result = probed(view, draws=20, family=GRID)
    assert result.evaluated.probabilities.shape[2] == 3
    assert result.evaluation.at_threshold == {}
    assert result.evaluation.decision_curves == {}
    assert "quadratic_kappa" not in {
        *result.evaluation.overall,
        *result.evaluation.by_target["finding"],
        *result.evaluation.by_subgroup["anatomy"]["XR_HAND"],
    }
    assert {"kappa", "accuracy"} <= set(result.evaluation.overall)


@pytest.mark.parametrize(("positive", "column"), [("severe", 2), ("moderate", 1)])
def test_a_task_of_grades_has_quadratic_kappa_and_the_curve_of_its_positive_class(
    positive: str, column: int
) -> None:
    view = make_view(classes=("mild", "moderate", "severe"), signal=3.0)
    task = replace(view.task, ordered=True, positive=positive)
    result = probed(replace(view, task=task), draws=20, family=GRID)
    y, probabilities = result.evaluated.y[:, 0], result.evaluated.probabilities[:, 0]
    reference = cohen_kappa_score(y, probabilities.argmax(1), weights="quadratic")
    assert result.evaluation.overall["quadratic_kappa"].value == pytest.approx(reference)
    assert "quadratic_kappa" in result.evaluation.by_subgroup["anatomy"]["XR_HAND"]
    # Acting on everybody: the share of the class, less the others at the odds of the threshold.
    curve = result.evaluation.decision_curves["finding"]
    at_half = curve.thresholds.index(0.5)
    share = float((y == column).mean())
    assert curve.treat_all[at_half].value == pytest.approx(share - (1 - share))
    acted = probabilities[:, column] >= 0.5
    benefit = np.mean(acted & (y == column)) - np.mean(acted & (y != column))
    assert curve.model[at_half].value == pytest.approx(benefit)


def test_weights_of_the_task_make_a_weighted_log_loss() -> None:
    view = make_view()
    weighted = replace(view, task=replace(view.task, class_weights=(1.0, 4.0)))
    result = probed(weighted, draws=20, family=GRID)
    y, probabilities = result.evaluated.y[:, 0], result.evaluated.probabilities[:, 0]
    case = np.array([1.0, 4.0])[y]
    expected = -(case * np.log(probabilities[np.arange(len(y)), y])).sum() / case.sum()
    assert result.evaluation.overall["weighted_log_loss"].value == pytest.approx(expected)


def test_subgroups_part_the_units() -> None:
    view = make_view()
    result = probed(view, draws=20, family=GRID)
    cells = result.evaluation.by_subgroup["anatomy"]
    assert set(cells) == {"XR_WRIST", "XR_HAND"}
    total = sum(of_cell["accuracy"].n for of_cell in cells.values())
    assert total == result.evaluation.overall["accuracy"].n
    mixed = sum(of["accuracy"].value * of["accuracy"].n for of in cells.values()) / total
    assert mixed == pytest.approx(result.evaluation.overall["accuracy"].value)


def test_thresholds_come_from_out_of_fold_probabilities() -> None:
    result = probed(make_view(patients=800), draws=20, family=GRID)
    threshold = result.fitted.thresholds[0]["sensitivity-0.90"]
    y, stated = result.out_of_fold.y[:, 0], result.out_of_fold.probabilities[:, 0, 1]
    assert (stated[y == 1] >= threshold).mean() >= 0.9
    recall = result.evaluation.at_threshold["sensitivity-0.90"]["recall"]
    assert 0.8 < recall.value < 1.0


def test_a_patient_in_both_splits_stops_the_probe() -> None:
    view = make_view()
    patients = view.patients.copy()
    patients[np.flatnonzero(view.splits == "valid")[0]] = patients[np.flatnonzero(view.splits == "train")[0]]
    with pytest.raises(DataError, match="1 patients are in the training and the evaluation split"):
        probed(replace(view, patients=patients), family=GRID)


def test_vectors_of_failed_images_stop_the_probe() -> None:
    view = make_view()
    X = view.X.copy()
    X[3, 2] = np.nan
    with pytest.raises(
        DataError, match=r"1 of \d+ vectors hold NaN or infinity, the first of image image00003"
    ):
        probed(replace(view, X=X), family=GRID)


def test_a_label_outside_the_classes_stops_the_probe() -> None:
    view = make_view()
    with pytest.raises(DataError, match="found 2 to 3"):
        probed(replace(view, y=view.y + 2), family=GRID)


def test_doubled_units_stop_the_probe() -> None:
    view = make_view()
    unit_ids = view.unit_ids.copy()
    unit_ids[1] = unit_ids[0]
    with pytest.raises(DataError, match="unit ids must be unique"):
        probed(replace(view, unit_ids=unit_ids), family=GRID)


def test_three_patients_stop_the_probe() -> None:
    with pytest.raises(DataError, match="patients"):
        probed(make_view(patients=3, valid_share=0), family=GRID)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds 2 or more; found"),
        ({"draws": 0}, "draws must be 1 or more"),
        ({"pooling": "median"}, "found 'median'"),
        ({"class_weights": "heavy"}, "found 'heavy'"),
        ({"class_weights": "task"}, "states none"),
        ({"head": "nothing"}, "no head named 'nothing'"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        probed(make_view(), **options)


def test_what_is_no_view_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"view must be a View: use embedstore.load_view\(store, task\); found str"
    ):
        probe("mura.store", "logistic")
