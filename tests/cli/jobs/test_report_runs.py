"""Where the page of one run goes, and that of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.jobs.report_runs import report_runs
from embedstore.errors import UsageError
from heads.estimators.logistic import LogisticFamily
from heads.runs.run_files import save_run
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.1,), normalisations=("none",))


def run_in(folder: Path, seed: int = 0) -> Path:
    return save_run(folder, probed(make_view(), draws=20, family=GRID, seed=seed)).folder


def test_one_run_has_its_page_inside_and_several_beside_them(tmp_path: Path) -> None:
    one, other = run_in(tmp_path / "runs/one"), run_in(tmp_path / "runs/other", seed=1)
    assert report_runs([str(one)]) == one / "report.html"
    assert report_runs([one, other]) == tmp_path / "runs/comparison.html"
    assert report_runs([one, other], out="both.html") == Path("both.html")
    for page in (one / "report.html", tmp_path / "runs/comparison.html", Path("both.html")):
        assert page.is_file()
    assert not (other / "report.html").exists()


def test_runs_without_a_folder_in_common_need_a_name_for_their_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.jobs.report_runs.load_run", lambda folder: folder)
    monkeypatch.setattr("cli.jobs.report_runs.save_report", lambda *_: pytest.fail("writes"))
    with pytest.raises(UsageError, match="have no folder in common: name the page with --out"):
        report_runs([tmp_path, Path("/elsewhere/run")])
