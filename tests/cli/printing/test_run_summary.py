"""What is printed of a run with rare targets: a line for each reason, the folds, and the options that work."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
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
from tests.views import make_view, probed

RARE = COLUMNS | {"few": labels(normal=35, abnormal=5), "twin": labels(normal=0, abnormal=40)}


def test_targets_left_out_have_a_line_for_each_reason_in_text_table_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", probed(view_of(RARE), "knn", draws=5))
    expected = [
        "left out: 2 of 6 targets, one class only to learn from: alone, twin",
        "left out: 1 of 6 targets, a class with too few patients for 5 folds: rare",
        "left out: 1 of 6 targets, a class with too few patients for 5 folds once the patients of an outer fold are "
        "left out: few; --folds 3 would learn 1 of them",
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


def test_an_ece_says_what_it_is_of_and_what_noise_alone_would_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", probed(make_view(), draws=20))
    entry = run.document["metrics"]["ece"]
    assert 0 < entry["if_perfect"] < 1
    told = f"debiased {entry['debiased']:.3f}; of a perfect head {entry['if_perfect']:.3f}"
    print_run(run)
    lines = capsys.readouterr().out.splitlines()
    (row,) = (at for at, line in enumerate(lines) if line.startswith("ece "))
    assert lines[row + 1].strip() == f"classwise, of the positive class's probability; {told}"
    print_head_table(ComparedHeads(runs={"logistic": run}, skipped={}, differences={}, report=tmp_path))
    expected = f"ece: classwise, of the positive class's probability; logistic {told}"
    assert expected in capsys.readouterr().out.splitlines()
    page = render_report([run])
    assert page.count(told) == 2  # the tile and the table
    assert "ECE (classwise, of the positive class&#39;s probability)" in page


def test_quadratic_kappa_of_classes_without_an_order_is_left_out_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = make_view(classes=("mild", "moderate", "severe"))
    plain = save_run(tmp_path / "plain", probed(view, draws=10))
    graded = replace(view, task=replace(view.task, ordered=True))
    ordered = save_run(tmp_path / "ordered", probed(graded, draws=10))
    reason = "left out: the task does not say that its classes are grades, from the least to the gravest"
    for run, expected in ((plain, reason), (ordered, "0.")):
        print_run(run)
        out = capsys.readouterr().out
        (line,) = (line for line in out.splitlines() if line.startswith("quadratic_kappa"))
        assert line.split(None, 1)[1].startswith(expected)
        assert (reason in render_report([run])) is (run is plain)
        print_head_table(ComparedHeads(runs={"a": run}, skipped={}, differences={}, report=tmp_path))
        assert (f"quadratic_kappa: {reason}" in capsys.readouterr().out) is (run is plain)
    assert list(plain.document["left_out_metrics"]) == ["quadratic_kappa"]
    assert ordered.document["left_out_metrics"] == {}


def test_of_two_classes_nothing_is_left_out_and_nothing_said_of_grades(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", probed(make_view(), draws=5))
    print_run(run)
    assert "quadratic" not in capsys.readouterr().out
    assert run.document["left_out_metrics"] == {}


def test_an_interval_of_the_rule_of_three_says_how_many_patients_it_stands_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_run(tmp_path / "run", probed(make_view(), draws=5))
    run.document["metrics"]["accuracy"] = {
        "value": 1.0, "low": 0.905, "high": 1.0, "n": 60, "rule_of_three_patients": 30,
    }  # fmt: skip
    print_run(run)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("accuracy"))
    assert line.endswith("1.000    0.905 to   1.000  n=60 (rule of three, 30 patients)")
    assert "rule of three, 30 patients" in render_report([run])
