"""Encoders against a baseline: scikit-learn on resampled patients, Holm by hand, and what is asked wrongly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from cli.printing.run_summary import print_run
from embedstore.errors import DataError, UsageError
from embedstore.lumbar.levels import CLASS_WEIGHTS, CLASSES, TARGETS
from heads.comparing.comparison_table import comparison_table
from heads.lumbar.rsna_score import for_rsna_score, rsna_score
from heads.runs.comparison import compare
from heads.runs.run import Run
from tests.heads.comparing.encoder_runs import changed, of_units, run_of
from tests.views import make_view

DRAWS = 40


def resampled(one: Run, other: Run, units: list[str], *, seed: int) -> dict[str, np.ndarray]:
    """Return metric -> one minus other on all units and then in each draw, by scikit-learn on repeated rows."""
    rows = [
        {row["unit_id"]: row for row in run.predictions.to_pylist() if row["role"] == "evaluation"}
        for run in (one, other)
    ]
    truth = np.array([rows[0][unit]["label"] == "abnormal" for unit in units])
    stated = [np.array([of_run[unit]["prob_abnormal"] for unit in units]) for of_run in rows]
    patients = np.array([rows[0][unit]["patient_id"] for unit in units])
    names = np.unique(patients)
    samples = [np.arange(len(units))]
    generator = np.random.default_rng(seed)
    for _ in range(DRAWS):
        drawn = names[generator.integers(0, len(names), len(names), dtype=np.int32)]
        samples.append(np.concatenate([np.flatnonzero(patients == name) for name in drawn]))
    return {
        name: np.array(
            [function(truth[at], stated[0][at]) - function(truth[at], stated[1][at]) for at in samples]
        )
        for name, function in (("auroc", roc_auc_score), ("log_loss", log_loss))
    }


def test_differences_are_those_of_both_runs_on_the_same_resampled_patients(sharp: Run, blurred: Run) -> None:
    units = sorted(sharp.evaluated.unit_ids.tolist())[:40]
    table = comparison_table([blurred, of_units(sharp, set(units))], draws=DRAWS, seed=3)
    assert (table.units, table.draws, table.seed, table.baseline) == (40, DRAWS, 3, 0)
    base, other = table.runs
    expected = resampled(sharp, blurred, units, seed=3)
    for name, differences in expected.items():
        found = other.differences[name]
        assert found.estimate.value == pytest.approx(differences[0], abs=1e-12)
        assert other.metrics[name].value - base.metrics[name].value == pytest.approx(
            differences[0], abs=1e-12
        )
        low, high = np.quantile(differences[1:], [0.025, 0.975])
        assert (found.estimate.low, found.estimate.high) == pytest.approx((low, high), abs=1e-12)
        tails = [(1 + (sign * differences[1:] <= 0).sum()) / (1 + DRAWS) for sign in (1, -1)]
        assert found.p_value == pytest.approx(min(1, 2 * min(tails)))
    assert expected["auroc"][0] > 0.05, "the blurred encoder is the worse one"
    assert base.differences == {}


def test_on_equal_units_the_numbers_are_those_of_the_comparison_of_one_store(
    sharp: Run, blurred: Run
) -> None:
    table = comparison_table([sharp, blurred], draws=DRAWS, seed=0)
    for entry in compare([sharp, blurred], draws=DRAWS, seed=0):
        # That one compares with the best, in either direction.
        sign = 1 if entry.best == 0 else -1
        found = table.runs[1].differences[entry.metric]
        assert found.estimate.value == pytest.approx(sign * entry.difference.estimate.value, abs=1e-12)
        assert found.p_value == entry.difference.p_value


def test_p_values_are_corrected_for_all_other_runs_of_the_table(sharp: Run, blurred: Run) -> None:
    patients = {unit: k for k, unit in enumerate(sorted(sharp.evaluated.unit_ids.tolist()))}
    nudged = changed(
        sharp, "prob_abnormal", lambda row: row["prob_abnormal"] * (0.9 + patients.get(row["unit_id"], 0) % 3 / 10)
    )  # fmt: skip
    nudged = replace(nudged, folder=sharp.folder.with_name("nudged"))
    table = comparison_table([sharp, blurred, nudged], draws=DRAWS)
    for name in ("auroc", "log_loss", "brier"):
        raw = [table.runs[position].differences[name].p_value for position in (1, 2)]
        smaller, larger = min(raw), max(raw)
        holm = {smaller: min(1, 2 * smaller), larger: max(min(1, 2 * smaller), larger)}
        assert [table.runs[position].corrected_p[name] for position in (1, 2)] == [holm[p] for p in raw]


def test_the_baseline_is_the_first_or_the_one_that_is_named(sharp: Run, blurred: Run) -> None:
    table = comparison_table([sharp, blurred], baseline=blurred, draws=DRAWS)
    assert [entry.encoder for entry in table.runs] == ["sharp", "blurred"]
    assert table.baseline == 1
    assert table.runs[0].differences["auroc"].estimate.value > 0
    joined = comparison_table([sharp], baseline=blurred.folder, draws=DRAWS)
    assert (joined.baseline, joined.to_json()["runs"]) == (1, table.to_json()["runs"])
    assert table.best_first == (0, 1)
    assert comparison_table([blurred, sharp], draws=DRAWS).best_first == (1, 0)


def test_draws_and_seed_are_those_of_the_baseline(sharp: Run, blurred: Run) -> None:
    table = comparison_table([sharp, blurred])
    assert (table.draws, table.seed) == (20, 0)


def test_the_table_is_plain_json_and_short_to_print(sharp: Run, blurred: Run) -> None:
    table = comparison_table([sharp, blurred], draws=DRAWS)
    document = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert document["baseline"] == "sharp, logistic"
    assert document["runs"][1]["identity_sha256"] == blurred.identity.sha256
    assert document["runs"][0]["differences"] == {}
    auroc = document["runs"][1]["differences"]["auroc"]
    assert auroc["low"] <= auroc["value"] <= auroc["high"]
    assert auroc["p_value"] == auroc["p_value_holm"]
    assert {cell["column"] for cell in document["subgroups"]} == {"anatomy", "age"}
    assert "baseline" in repr(table)
    assert len(repr(table)) < 500


def test_one_run_twice_is_one_run(sharp: Run) -> None:
    with pytest.raises(UsageError, match="two or more to be compared; found 1"):
        comparison_table([sharp, sharp.folder])
    with pytest.raises(UsageError, match=r"sequence of runs; found 'runs/one': write \['runs/one', ...\]"):
        comparison_table("runs/one")


@pytest.mark.parametrize("options", [{"draws": 0.5}, {"seed": "x"}])
def test_draws_and_seeds_are_whole_numbers(sharp: Run, blurred: Run, options) -> None:
    with pytest.raises(UsageError, match="whole number"):
        comparison_table([sharp, blurred], **options)


@pytest.mark.parametrize("options", [{"draws": 0}, {"seed": -1}])
def test_there_is_a_draw_and_no_negative_seed(sharp: Run, blurred: Run, options) -> None:
    with pytest.raises(UsageError, match="draws must be 1 or more and seed 0 or more; found"):
        comparison_table([sharp, blurred], **options)


def test_columns_are_those_that_the_baseline_keeps(sharp: Run, blurred: Run) -> None:
    table = comparison_table([sharp, blurred], draws=DRAWS, subgroups=["age"])
    assert {cell.column for cell in table.cells} == {"age"}
    assert comparison_table([sharp, blurred], draws=DRAWS, subgroups=[]).cells == ()
    with pytest.raises(
        UsageError, match=r"`subgroups`: sharp, logistic keeps no column 'sex'; it keeps an.*, age"
    ):
        comparison_table([sharp, blurred], subgroups=["sex"])


def test_runs_from_before_their_units_were_kept_are_compared_without_subgroups(
    sharp: Run, blurred: Run
) -> None:
    old = [replace(run, units=None) for run in (sharp, blurred)]
    table = comparison_table(old, draws=DRAWS)
    assert table.cells == ()
    assert table.runs[1].metrics == comparison_table([sharp, blurred], draws=DRAWS).runs[1].metrics


def test_a_folder_that_holds_no_run_is_named(sharp: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run"):
        comparison_table([sharp, tmp_path])


def test_runs_of_the_lumbar_competition_have_its_score_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = make_view(patients=40, classes=CLASSES, targets=TARGETS)
    task = replace(view.task, class_weights=CLASS_WEIGHTS, ordered=True, primary_metric="log_loss")
    run = run_of(replace(view, task=task), tmp_path / "one")
    # Nearer to saying nothing, so that the score differs.
    duller = replace(
        changed(run, "prob_Severe", lambda row: row["prob_Severe"] / 2 + 1 / 6), folder=tmp_path / "other"
    )
    for name in ("prob_Normal/Mild", "prob_Moderate"):
        duller = changed(duller, name, lambda row, name=name: row[name] / 2 + 1 / 6)
    table = comparison_table([run, duller], draws=DRAWS)
    for entry, of in zip(table.runs, (run, duller), strict=True):
        evaluated = of.evaluated
        said = for_rsna_score(evaluated.probabilities)
        expected = rsna_score(evaluated.y, said, patients=evaluated.patients, draws=DRAWS)["rsna_score"]
        assert entry.metrics["rsna_score"].value == pytest.approx(expected.value, abs=1e-12)
        of_conditions = rsna_score(evaluated.y, said, patients=evaluated.patients, draws=DRAWS)
        assert entry.metrics["rsna_foraminal"].value == pytest.approx(of_conditions["foraminal"].value)
        as_given = rsna_score(evaluated.y, evaluated.probabilities, draws=DRAWS)["rsna_score"]
        assert entry.metrics["rsna_score_as_given"].value == pytest.approx(as_given.value)
    kept = run.document["rsna_score"]
    assert kept["rsna_score"]["value"] == pytest.approx(table.runs[0].metrics["rsna_score"].value)
    assert kept.keys() == {name for name in table.runs[0].metrics if name.startswith("rsna_")}
    print_run(run)
    assert "rsna_any_severe_spinal" in capsys.readouterr().out
    base, other = table.runs
    difference = other.differences["rsna_score"].estimate
    assert difference.value == pytest.approx(
        other.metrics["rsna_score"].value - base.metrics["rsna_score"].value, abs=1e-12
    )
    assert other.corrected_p["rsna_score"] == other.differences["rsna_score"].p_value
    assert "rsna_score" in table.columns
    assert "rsna_score_as_given" in table.to_json()["runs"][1]["differences"]
