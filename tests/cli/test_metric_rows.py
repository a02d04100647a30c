"""A metric is one row: from it come run.json, the terminal, the tables of heads, the report and the comparison."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cli.jobs.probe_all import ComparedHeads
from cli.options import print_json
from cli.printing.head_table import comparison_document, print_head_table
from cli.printing.run_summary import print_run
from heads.reporting.page import render_report
from heads.runs.comparison import compare_runs, leading_metric
from heads.runs.run_files import save_run
from heads.scores import Floats
from heads.statistics.metrics import METRICS, Metric
from tests.views import make_view, probed


def _largest_error(y: np.ndarray, probabilities: Floats, weights: np.ndarray | None = None) -> Floats:
    error = 1 - probabilities[np.arange(len(y)), y]
    weights = np.ones((1, len(y))) if weights is None else weights
    return np.asarray(np.where(weights > 0, error, 0).max(1), np.float64)


ROW = Metric(
    name="largest_error",
    label="largest error",
    function=_largest_error,
    better="smaller",
    computed=frozenset({"subgroups", "comparison", "learning curve"}),
    shown=frozenset({"summary", "heads", "tiles", "cells"}),
    least_units=40,
)


def test_a_row_more_is_a_metric_more_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(METRICS, ROW.name, ROW)
    view = make_view()
    results = {head: probed(view, head, draws=40) for head in ("logistic", "knn")}
    runs = {head: save_run(tmp_path / head, result) for head, result in results.items()}
    run, evaluated = runs["logistic"], results["logistic"].evaluated
    worst = float((1 - evaluated.probabilities[np.arange(len(evaluated.y)), 0, evaluated.y[:, 0]]).max())

    assert run.document["metrics"][ROW.name]["value"] == worst
    assert ROW.name in run.document["before_calibration"]
    # Each half of the evaluation set has fewer units than the row asks for.
    cells = run.document["by_subgroup"]["anatomy"]
    assert [cell[ROW.name]["value"] for cell in cells.values()] == [None, None]
    assert all(cell[ROW.name]["n"] < ROW.least_units <= len(evaluated.unit_ids) for cell in cells.values())

    print_json(run.document)
    assert json.loads(capsys.readouterr().out)["metrics"][ROW.name]["value"] == worst
    print_run(run)
    assert re.search(rf"^largest_error +{worst:.3f} ", capsys.readouterr().out, re.MULTILINE)

    found = compare_runs(list(runs.values()), draws=40)
    (difference,) = (entry for entry in found if entry.metric == ROW.name)
    values = [one.document["metrics"][ROW.name]["value"] for one in runs.values()]
    assert difference.best == int(np.argmin(values))
    heads = {(list(runs)[entry.run], entry.metric): entry for entry in found}
    compared = ComparedHeads(runs=runs, skipped={}, differences=heads, report=tmp_path / "page.html")
    print_head_table(compared)
    assert "largest_error" in capsys.readouterr().out.splitlines()[0]
    named = [entry["metric"] for entry in comparison_document(compared)["differences"]]
    assert named.count(ROW.name) == 1

    page = render_report(list(runs.values()))
    assert f"<th>{ROW.label}</th>" in page
    assert f'<div class="tile">{ROW.label}<b>{worst:.3f}</b>' in page
    assert page.count(f"<td>{ROW.label}</td>") == 3  # the full table of each run, and their difference


def test_a_run_leads_with_its_primary_metric_wherever_runs_are_compared_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, ROW.name, ROW)
    run = save_run(tmp_path / "run", probed(make_view(), draws=5))
    leading = {}
    for name in (ROW.name, "kappa", "ece"):
        run.document["task"]["primary_metric"] = name
        leading[name] = leading_metric(run)
    assert leading == {ROW.name: ROW.name, "kappa": "kappa", "ece": "auroc"}
