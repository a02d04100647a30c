"""Predictions as a table and back: to the bit, with the data set's words, one schema."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedstore.view import MISSING
from heads.protocol.predictions import EVALUATION, NO_FOLD, OUT_OF_FOLD, Predictions, schema
from heads.reporting.page import render_report
from heads.runs.comparison import compare_runs
from heads.runs.run_files import load_run, save_run
from heads.statistics.conformal import UNKNOWN
from tests.views import make_view, probed


def _predictions(n_classes: int, *, seed: int = 0, prefix: str = "unit") -> Predictions:
    generator, units, targets = np.random.default_rng(seed), 7, 2
    probabilities = generator.dirichlet(np.ones(n_classes), (units, targets))
    members = generator.integers(0, 2, (units, targets, n_classes)).astype(np.int8)
    y = generator.integers(0, n_classes, (units, targets))
    y[2, 1] = MISSING
    probabilities[2, 1] = np.nan
    scores = generator.normal(size=(units, targets, 1 if n_classes == 2 else n_classes))
    scores[3, 0], probabilities[3, 0] = np.nan, np.nan
    members[4, 0] = UNKNOWN
    members[5, 1] = 0
    return Predictions(
        unit_ids=np.array([f"{prefix}{row}" for row in range(units)]),
        patients=np.array([f"patient{row // 2}" for row in range(units)]),
        splits=np.array(["train", "valid", "test", "", "train", "valid", "test"]),
        fold=np.array([0, 1, NO_FOLD, 2, 0, NO_FOLD, 1]),
        y=y,
        scores=scores,
        probabilities=probabilities,
        members=members,
    )


@pytest.mark.parametrize("classes", [("no", "yes"), ("mild", "moderate", "severe")])
def test_a_table_gives_the_predictions_back_to_the_bit(classes: tuple[str, ...]) -> None:
    named = {"targets": ("left", "right"), "classes": classes}
    wanted, other = _predictions(len(classes)), _predictions(len(classes), seed=1, prefix="other")
    table = pa.concat_tables([other.to_table(OUT_OF_FOLD, **named), wanted.to_table(EVALUATION, **named)])
    assert table.schema.equals(schema(classes))
    found = Predictions.from_table(table, EVALUATION, **named)
    for name in Predictions.__dataclass_fields__:
        before, after = getattr(wanted, name), getattr(found, name)
        assert (before.dtype, before.shape) == (after.dtype, after.shape), name
        assert before.tobytes() == after.tobytes(), name


def test_a_row_of_the_table_says_in_words_what_the_arrays_hold() -> None:
    table = _predictions(3).to_table(EVALUATION, targets=("left", "right"), classes=("a", "b", "c"))
    rows = table.to_pylist()
    assert [row["target"] for row in rows] == ["left"] * 7 + ["right"] * 7
    assert [row["split"] for row in rows[:4]] == ["train", "valid", "test", ""]
    assert {row["role"] for row in rows} == {"evaluation"}
    assert rows[2]["fold"] is None
    assert rows[4]["conformal_set"] is None
    assert rows[7 + 5]["conformal_set"] == []
    assert (rows[3]["score_a"], rows[3]["prob_b"], rows[3]["label"] is None) == (None, None, False)
    unlabelled = rows[7 + 2]
    assert (unlabelled["label"], unlabelled["prob_a"], unlabelled["prob_c"]) == (None, None, None)


def test_the_words_of_the_data_set_stay_in_the_table_of_a_run(tmp_path: Path) -> None:
    view = make_view()
    run = save_run(tmp_path / "run", probed(view, draws=5))
    words = dict(zip(view.unit_ids.tolist(), view.splits.tolist(), strict=True))
    roles = {"train": "out-of-fold", "valid": "evaluation"}
    rows = run.predictions.to_pylist()
    assert {row["split"] for row in rows} == {"train", "valid"}
    assert all(row["split"] == words[row["unit_id"]] and row["role"] == roles[row["split"]] for row in rows)
    assert run.learned_units == {unit for unit, word in words.items() if word == "train"}
    assert run.out_of_fold.splits.tolist() == ["train"] * len(run.out_of_fold.unit_ids)


def test_the_table_of_a_run_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    from_table = Predictions.from_table.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Predictions], table: pa.Table, role: str, **named: object) -> Predictions:
        parsed.append(role)
        found: Predictions = from_table(cls, table, role, **named)
        return found

    for name in ("one", "two"):
        save_run(tmp_path / name, probed(make_view(), draws=5))
    runs = [load_run(tmp_path / name) for name in ("one", "two")]
    monkeypatch.setattr(Predictions, "from_table", classmethod(counted))
    render_report(runs)
    compare_runs(runs, draws=5)
    assert parsed == ["evaluation", "evaluation"]
