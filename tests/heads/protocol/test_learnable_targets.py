"""Targets too rare to learn are left out with their reason before anything is fitted; expected by counting patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedstore.errors import DataError
from embedstore.view import MISSING, View
from heads.inputs.leakage import leakage_groups
from heads.protocol.learnable_targets import learnable_targets
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from tests.views import make_view, probed


def view_of(columns: dict[str, list[int]], *, classes: tuple[str, ...] = ("normal", "abnormal")) -> View:
    """Return a view without a split whose patients have these labels: one study a patient, one image a study."""
    n = len(next(iter(columns.values())))
    view = make_view(patients=n, targets=tuple(columns), classes=classes, valid_share=0)
    first = np.unique(view.patients, return_index=True)[1]
    images = np.array([np.flatnonzero(view.unit_of_image == unit)[0] for unit in first])
    return replace(
        view,
        X=view.X[images],
        image_ids=view.image_ids[images],
        content_sha256=view.content_sha256[images],
        unit_of_image=np.arange(n),
        unit_ids=view.unit_ids[first],
        y=np.array(list(columns.values())).T,
        patients=view.patients[first],
        splits=view.splits[first],
        subgroups={name: cells[first] for name, cells in view.subgroups.items()},
    )


def labels(*, normal: int, abnormal: int, severe: int = 0, missing: int = 0) -> list[int]:
    return [0] * normal + [1] * abnormal + [2] * severe + [MISSING] * missing


COLUMNS = {
    "good": labels(normal=20, abnormal=20),
    "alone": labels(normal=40, abnormal=0),
    "none": labels(normal=0, abnormal=0, missing=40),
    "rare": labels(normal=37, abnormal=3),
}


def found(view: View, *, folds: int = 5, strict: bool = False):
    return learnable_targets(view, leakage_groups(view), folds=folds, seed=0, strict=strict)


def test_targets_are_left_out_with_their_reason_and_counts() -> None:
    kept = found(view_of(COLUMNS))
    assert kept.view.task.targets == ("good",)
    assert kept.view.y.shape == (40, 1)
    assert kept.folds == 5
    assert {name: (entry.reason, dict(entry.patients)) for name, entry in kept.left_out.items()} == {
        "alone": ("one class only to learn from", {"normal": 40, "abnormal": 0}),
        "none": ("no label to learn from", {"normal": 0, "abnormal": 0}),
        "rare": ("a class with too few patients for 5 folds", {"normal": 37, "abnormal": 3}),
    }
    # Three patients in two folds: a fold is left out that holds one or two of them, and one is too few for two folds.
    assert kept.left_out["rare"].possible_folds is None
    assert kept.left_out["alone"].possible_folds is None


def test_a_class_without_a_patient_is_a_reason_of_its_own() -> None:
    columns = {"all": labels(normal=20, abnormal=20, severe=20), "two": labels(normal=30, abnormal=30)}
    kept = found(view_of(columns, classes=("mild", "moderate", "severe")))
    assert kept.left_out["two"].reason == "a class without any patient to learn from"


@pytest.mark.parametrize(
    ("abnormal", "folds"),
    # Dealt evenly into k folds, a patients leave a - ceil(a / k) outside the fullest one, which must be k or more.
    [(40, 5), (7, 5), (6, 4), (5, 3), (4, 2), (3, None)],
)
def test_folds_become_as_few_as_they_must_be_in_cross_validation(abnormal: int, folds: int | None) -> None:
    view = view_of({"finding": labels(normal=60, abnormal=abnormal)})
    if folds is None:
        # With two folds one patient is left outside the fuller one.
        with pytest.raises(DataError, match=r"'finding' cannot be learned in 2 folds .*abnormal 3"):
            found(view)
        return
    assert found(view).folds == folds
    assert not found(view).left_out


@pytest.mark.parametrize(("abnormal", "folds"), [(5, 5), (4, 4), (2, 2)])
def test_with_an_official_split_the_training_patients_count(abnormal: int, folds: int) -> None:
    view = view_of({"finding": labels(normal=60, abnormal=abnormal) + labels(normal=10, abnormal=10)})
    splits = np.array(["train"] * (60 + abnormal) + ["valid"] * 20)
    assert found(replace(view, splits=splits)).folds == folds


def test_the_number_that_was_asked_for_is_kept_where_one_target_can_be_learned_in_it() -> None:
    columns = {"good": labels(normal=30, abnormal=30), "rare": labels(normal=55, abnormal=5)}
    kept = found(view_of(columns))
    assert kept.folds == 5
    assert kept.left_out["rare"].possible_folds == 3


def test_strict_names_all_targets_and_the_line_that_works() -> None:
    with pytest.raises(DataError) as refused:
        found(view_of(COLUMNS), strict=True)
    said = str(refused.value)
    assert "3 of 4 targets cannot be learned in 5 folds" in said
    assert "'alone' (normal 40, abnormal 0)" in said
    assert "'rare' (normal 37, abnormal 3)" in said
    assert said.endswith("`targets=['good']`")
    assert not found(view_of({"good": COLUMNS["good"]}), strict=True).left_out


def test_where_nothing_can_be_learned_counts_are_said() -> None:
    columns = {name: COLUMNS[name] for name in ("alone", "rare")}
    with pytest.raises(
        DataError, match=r"2 of 2 targets cannot be learned in 2 folds .*normal 37, abnormal 3"
    ):
        found(view_of(columns))


def test_nothing_is_fitted_before_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heads.protocol.probe.fit", lambda *_, **__: pytest.fail("fits"))
    with pytest.raises(DataError, match="cannot be learned"):
        probe(view_of({"alone": COLUMNS["alone"]}), ProbeOptions(draws=5))


def test_a_probe_learns_the_others_as_if_they_were_the_task() -> None:
    view = view_of(COLUMNS)
    whole, alone = (probed(view, "knn", draws=5, targets=targets) for targets in ((), ("good",)))
    assert list(whole.left_out) == ["alone", "none", "rare"]
    assert not alone.left_out
    assert whole.evaluated.probabilities.tobytes() == alone.evaluated.probabilities.tobytes()


def test_a_probe_in_fewer_folds_says_how_many_were_asked_for() -> None:
    result = probed(view_of({"finding": labels(normal=40, abnormal=5)}), "knn", draws=5)
    assert (result.settings.options.folds, result.settings.folds_asked) == (3, 5)
    assert set(result.evaluated.fold.tolist()) == {0, 1, 2}
