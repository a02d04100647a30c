"""The page of encoders and heads: all numbers of the table, self-contained, and names that are no markup."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from heads.comparing.comparison_table import ComparisonTable, comparison_table
from heads.reporting.comparison_page import render_comparison, save_comparison
from heads.runs.run import Run
from heads.statistics.metrics import shown_in
from tests.heads.comparing.encoder_runs import of_units, run_of, view_by


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return run_of(view_by("sharp"), folder / "sharp"), run_of(view_by("blur", noise=2.0), folder / "blur")


@pytest.fixture(scope="module")
def table(runs: tuple[Run, Run]) -> ComparisonTable:
    return comparison_table(runs, draws=40, seed=1)


def test_the_page_has_each_runs_metrics_and_differences(table: ComparisonTable) -> None:
    page = render_comparison(table)
    for entry in table.runs:
        found = entry.metrics["auroc"]
        assert f'{found.value:.3f} <span class="whole">[{found.low:.3f}, {found.high:.3f}]</span>' in page
    found = table.runs[1].differences["log_loss"].estimate
    assert f'{found.value:.3f} <span class="whole">[{found.low:.3f}, {found.high:.3f}]</span>' in page
    assert f"{table.units} studies of {table.patients} patients" in page
    assert "(baseline)" in page
    assert "Some or all of the data" not in page, "these runs name no phantom"


def test_every_column_of_the_page_has_the_numbers_that_the_runs_themselves_state(
    runs: tuple[Run, Run], table: ComparisonTable
) -> None:
    page = render_comparison(table)
    assert "<th>AUPRC</th>" in page
    for run in runs:
        for name in shown_in("tiles"):
            value = run.document["metrics"].get(name, {}).get("value")
            if value is not None:
                assert f">{value:.3f} " in page, name


def test_subgroups_stand_there_with_their_numbers_or_the_reason_why_there_are_none(
    runs: tuple[Run, Run], table: ComparisonTable
) -> None:
    page = render_comparison(table)
    named = [cell for cell in table.cells if not cell.refused]
    assert named
    for cell in named:
        assert re.search(
            rf'<td rowspan="2">{cell.column}: {cell.cell}</td><td class="n" rowspan="2">{cell.units}<', page
        )
    few = comparison_table(
        [of_units(runs[0], set(runs[0].evaluated.unit_ids[:12].tolist())), runs[1]], draws=40
    )
    reasons = [cell.refused for cell in few.cells]
    assert all(reasons)
    refused = render_comparison(few)
    assert refused.count("no number: ") == len(reasons)
    assert all(f"{reason.replace(chr(39), '&#39;')}, fewer than 10" in refused for reason in reasons)


def test_the_page_is_drawn_twice_the_same_and_asks_nothing_from_elsewhere(table: ComparisonTable) -> None:
    page = render_comparison(table)
    assert page == render_comparison(table)
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert page.count("<svg") == 2


def test_notes_and_names_of_encoders_are_text(runs: tuple[Run, Run], tmp_path: Path) -> None:
    one, other = runs
    sly = replace(other, identity=replace(other.identity, encoder="<b>bold</b>"))
    fewer = comparison_table([of_units(one, set(one.evaluated.unit_ids[:30].tolist())), sly], draws=40)
    save_comparison(tmp_path / "page.html", fewer)
    page = (tmp_path / "page.html").read_text()
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold" in page
    assert "evaluated units are not in every run and are left out." in page
