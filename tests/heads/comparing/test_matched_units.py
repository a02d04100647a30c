"""Which units two runs have in common, and every way in which they may not be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import UsageError
from embedstore.view import MISSING
from heads.comparing.matched_units import match_units
from heads.runs.run import Run
from tests.heads.comparing.encoder_runs import changed, documented, of_units, run_of, view_by

NAMES = ["sharp, logistic", "blurred, logistic"]


def match(one: Run, other: Run):
    return match_units([one, other], NAMES)


def only(unit: str, column: str, value: object):
    """Return a change of one unit's cells."""
    return lambda row: value if row["unit_id"] == unit else row[column]


def units_table(run: Run, column: str, change) -> Run:
    """Return a copy of a run with other cells in its table of units."""
    assert run.units is not None
    cells = pa.array([change(row) for row in run.units.to_pylist()], pa.string())
    position = run.units.column_names.index(column)
    return replace(run, units=run.units.set_column(position, column, cells))


def test_units_are_matched_by_id_whatever_the_order_of_rows(sharp: Run, blurred: Run) -> None:
    shuffled = np.random.default_rng(0).permutation(blurred.predictions.num_rows)
    found = match(sharp, replace(blurred, predictions=blurred.predictions.take(shuffled)))
    assert found.unit_ids.tolist() == sorted(sharp.evaluated.unit_ids.tolist())
    assert found.left_out == (0, 0)
    assert found.notes == ()
    for run, probabilities in zip((sharp, blurred), found.probabilities, strict=True):
        of_unit = {
            row["unit_id"]: (row["prob_normal"], row["prob_abnormal"], row["label"], row["patient_id"])
            for row in run.predictions.to_pylist()
            if row["role"] == "evaluation"
        }
        for unit, stated, label, patient in zip(
            found.unit_ids.tolist(), probabilities[:, 0], found.y[:, 0], found.patients, strict=True
        ):
            assert of_unit[unit] == (*stated.tolist(), run.classes[label], patient)


def test_units_that_one_run_did_not_evaluate_are_left_out_and_counted(sharp: Run, blurred: Run) -> None:
    units = sharp.evaluated.unit_ids.tolist()
    found = match(sharp, of_units(blurred, set(units[:10])))
    assert found.unit_ids.tolist() == sorted(units[:10])
    assert found.left_out == (len(units) - 10, 0)
    assert found.notes == (
        f"sharp, logistic: {len(units) - 10} of its {len(units)} evaluated units are not in every run and are left out",
    )


def test_runs_without_a_common_unit_are_refused(sharp: Run, blurred: Run) -> None:
    renamed = changed(blurred, "unit_id", lambda row: f"other-{row['unit_id']}")
    with pytest.raises(UsageError, match=r"found none in sharp, logistic, blurred, logistic. Probe stores"):
        match(sharp, replace(renamed, units=None))
    n = len(sharp.evaluated.unit_ids)
    elsewhere = units_table(blurred, "content_sha256", lambda row: f"0{row['content_sha256'][1:]}x")
    with pytest.raises(UsageError, match=rf"found none in .*; {n} of one id have other images"):
        match(sharp, elsewhere)


def test_a_unit_with_other_images_is_not_the_same_unit(sharp: Run, blurred: Run) -> None:
    unit = str(sharp.evaluated.unit_ids[3])
    replaced = units_table(blurred, "content_sha256", only(unit, "content_sha256", "another"))
    found = match(sharp, replaced)
    assert unit not in found.unit_ids
    assert len(found.unit_ids) == len(sharp.evaluated.unit_ids) - 1
    assert found.notes[0] == "left out because their images are not the same in every run: 1 units"
    # Imported vectors have no pixels, and old runs no table: the id decides.
    unknown = units_table(blurred, "content_sha256", only(unit, "content_sha256", None))
    for run in (unknown, replace(blurred, units=None)):
        assert unit in match(sharp, run).unit_ids


def test_another_label_of_a_unit_is_refused_by_name(sharp: Run, blurred: Run) -> None:
    for part in (sharp.evaluated, sharp.out_of_fold):
        unit, truth = str(part.unit_ids[0]), sharp.classes[part.y[0, 0]]
        wrong = sharp.classes[1 - part.y[0, 0]]
        relabelled = changed(blurred, "label", only(unit, "label", wrong))
        with pytest.raises(
            UsageError,
            match=rf"same label in every run to be compared; 1 differ: study '{unit}', target 'finding': "
            rf"'{truth}' in sharp, logistic, '{wrong}' in blurred, logistic. Label both stores from one table",
        ):
            match(sharp, relabelled)


def test_a_unit_without_a_label_in_one_run_counts_in_none(sharp: Run, blurred: Run) -> None:
    unit = str(sharp.evaluated.unit_ids[0])
    found = match(sharp, changed(blurred, "label", only(unit, "label", None)))
    assert found.y[found.unit_ids == unit, 0] == MISSING
    assert (found.y == MISSING).sum() == 1


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("split", "train", r"same split .* 'valid' in sharp, logistic, 'train' in blurred, .* same split, `shots`"),
        ("patient_id", "nobody", r"same patient .* 'nobody' in blurred, logistic. Label both stores"),
    ],
)  # fmt: skip
def test_another_split_or_patient_of_a_unit_is_refused(
    sharp: Run, blurred: Run, column: str, value: str, said: str
) -> None:
    unit = str(sharp.evaluated.unit_ids[0])
    with pytest.raises(UsageError, match=said):
        match(sharp, changed(blurred, column, only(unit, column, value)))


def test_many_differing_units_are_counted_and_three_are_shown(sharp: Run, blurred: Run) -> None:
    with pytest.raises(UsageError) as caught:
        match(sharp, changed(blurred, "split", lambda row: "test"))
    assert str(caught.value).count("'test' in blurred, logistic") == 3
    total = len(sharp.evaluated.unit_ids) + len(sharp.out_of_fold.unit_ids)
    assert f"{total} differ" in str(caught.value)
    assert f"and {total - 3} more" in str(caught.value)


def test_one_split_and_cross_validation_are_not_compared(sharp: Run, blurred: Run) -> None:
    crossed = documented(blurred, "settings", mode="outer cross-validation")
    with pytest.raises(
        UsageError, match=r"found official split in sharp, .* and outer cross-validation in blur"
    ):
        match(sharp, crossed)


def test_runs_of_other_targets_are_refused_and_of_more_targets_compared_in_the_common(
    sharp: Run, blurred: Run
) -> None:
    other = documented(changed(blurred, "target", lambda row: "effusion"), "task", targets=["effusion"])
    with pytest.raises(
        UsageError, match="found finding in sharp, logistic and effusion in blurred, logistic"
    ):
        match(sharp, other)
    both = pa.concat_tables([blurred.predictions, other.predictions])
    wider = documented(replace(blurred, predictions=both), "task", targets=["finding", "effusion"])
    found = match(sharp, wider)
    assert found.targets == ("finding",)
    assert found.notes == ("blurred, logistic: effusion left out, not a target of every run",)
    assert np.array_equal(found.probabilities[1], match(sharp, blurred).probabilities[1])


def test_other_training_sets_are_said(sharp: Run, blurred: Run) -> None:
    learned = sharp.out_of_fold.unit_ids.tolist()
    rows = [
        row["role"] == "evaluation" or row["unit_id"] != learned[0] for row in blurred.predictions.to_pylist()
    ]
    fewer = replace(blurred, predictions=blurred.predictions.filter(pa.array(rows)))
    assert match(sharp, fewer).notes == (
        "training sets differ, not only encoders or heads: blurred, logistic learned from "
        f"{len(learned) - 1} units (0 only there), sharp, logistic from {len(learned)} (1 only there)",
    )


def test_other_outer_folds_are_said_and_other_numbers_of_the_same_folds_are_not(tmp_path: Path) -> None:
    def crossed(seed: int, encoder: str) -> Run:
        options: dict[str, Any] = {"seed": seed, "cross_validate": True, "folds": 3}
        return run_of(view_by(encoder), tmp_path / f"{encoder}{seed}", **options)

    one, alike, other = crossed(0, "sharp"), crossed(0, "blurred"), crossed(1, "blurred")
    renumbered = changed(alike, "fold", lambda row: (row["fold"] + 1) % 3)
    assert match(one, renumbered).notes == ()
    assert match(one, other).notes == (
        "blurred, logistic: the outer folds are not those of sharp, logistic; each unit is still evaluated by a head "
        "that never saw its patient",
    )


def test_another_task_is_refused(sharp: Run, blurred: Run) -> None:
    with pytest.raises(
        UsageError, match=r"must be of one task; found 'phantom' .* and 'fracture' .* Take those"
    ):
        match(sharp, documented(blurred, "task", name="fracture"))
