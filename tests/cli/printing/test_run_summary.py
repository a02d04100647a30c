"""What is printed of a run with rare targets: a line for each reason, the folds, and the options that work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cli.jobs.probe_all import ComparedHeads
from cli.printing.head_table import comparison_document, print_head_table
from cli.printing.run_summary import print_run
from cli.wording import for_command_line
from embedstore.errors import DataError
from heads.reporting.page import render_report
from heads.runs.run_files import save_run
from tests.heads.protocol.test_learnable_targets import COLUMNS, labels, view_of
from tests.views import probed

RARE = COLUMNS | {"few": labels(normal=35, abnormal=5), "twin": labels(normal=0, abnormal=40)}


def test_targets_left_out_have_a_line_for_each_reason_in_text_table_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", probed(view_of(RARE), "knn", draws=5))
    expected = [
        "left out: 2 of 6 targets, one class only to learn from: alone, twin",
        "left out: 2 of 6 targets, a class with too few patients for 5 folds: few, rare; --folds 3 would learn 1 of "
        "them",
        "left out: 1 of 6 targets, no label to learn from: none",
    ]
    print_run(run, stores=["a b.store"])
    out = capsys.readouterr().out
    assert sorted(line for line in out.splitlines() if line.startswith("left out: ")) == sorted(expected)
    assert " in place of 5" not in out
    assert out.splitlines()[-1] == "Next: embed predict --probe run 'a b.store'"
    compared = ComparedHeads(runs={"knn": run}, skipped={}, differences={}, report=tmp_path / "page.html")
    print_head_table(compared, stores=["s"])
    table = capsys.readouterr().out
    assert all(line in table.splitlines() for line in expected)
    assert re.search(r"^no image  .*the prevalence of training", table, re.MULTILINE)
    found = comparison_document(compared)["runs"]["knn"]["left_out_targets"]
    assert found["rare"] == {
        "reason": "a class with too few patients for 5 folds",
        "patients": {"normal": 37, "abnormal": 3},
        "possible_folds": None,
    }
    page = render_report([run])
    assert "alone: one class only to learn from (normal 40, abnormal 0 patients)" in page


def test_fewer_folds_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = view_of({"finding": labels(normal=40, abnormal=5)})
    run = save_run(tmp_path / "run", probed(view, "knn", draws=5))
    print_run(run)
    out = capsys.readouterr().out
    assert "folds: 3 in place of 5; a class has too few patients for more" in out
    assert "warning: intervals stand on fewer than 10 patients of a class: 5 of 'abnormal'" in out
    assert "Next:" not in out
    page = render_report([run])
    assert "3 (in place of 5, for which a class has too few patients) patient-grouped" in page
    assert "intervals stand on fewer than 10 patients" in page


def test_the_refusal_ends_in_options_that_keep_what_can_be_learned() -> None:
    view = view_of(RARE | {"right side": COLUMNS["good"]})
    with pytest.raises(DataError) as refused:
        probed(view, "knn", draws=5, strict_targets=True)
    line = for_command_line(str(refused.value)).rpartition(": ")[2]
    assert shlex.split(line) == ["--target", "good", "--target", "right side"]
    kept = probed(view, "knn", draws=5, strict_targets=True, targets=("good", "right side"))
    assert not kept.left_out


def test_the_baseline_stands_under_the_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_run(tmp_path / "run", probed(view_of({"finding": COLUMNS["good"]}), "knn", draws=5))
    print_run(run)
    head, _, constant = capsys.readouterr().out.partition("no image: the prevalence of training")
    assert "calibration_slope" in head
    # Half of 40 patients are abnormal, and of those outside a fold as well: log loss ln 2, Brier score a quarter.
    assert re.search(r"^log_loss +0\.693 ", constant, re.MULTILINE)
    assert re.search(r"^brier +0\.250 ", constant, re.MULTILINE)
