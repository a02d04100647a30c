"""Where the page of one run goes, and that of several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cli.jobs.open_probe import ProbeJob
from cli.jobs.probe_store import probe_store
from cli.jobs.report_runs import _default_page, report_runs
from cli.project import shown
from embedstore.errors import DataError, UsageError
from heads.estimators.logistic import LogisticFamily
from heads.protocol.options import ProbeOptions
from heads.runs.run_files import save_run
from heads.stages import watched
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.1,), normalisations=("none",))


def run_in(folder: Path, seed: int = 0) -> Path:
    return save_run(folder, probed(make_view(), draws=20, family=GRID, seed=seed)).folder


def test_one_run_has_its_page_inside_and_several_beside_them(tmp_path: Path) -> None:
    one, other = run_in(tmp_path / "runs/one"), run_in(tmp_path / "runs/other", seed=1)
    assert report_runs([str(one)]) == (one / "report.html",)
    said: list[str] = []
    with watched(lambda stages: said.append(str(stages[-1]))):
        assert report_runs([one, other]) == (tmp_path / "runs/comparison.html",)
    assert said == [f"{what} run {n} of 2" for what in ("reading", "drawing") for n in (1, 2)]
    assert report_runs([one, other], out="both.html") == (Path("both.html"),)
    for page in (one / "report.html", tmp_path / "runs/comparison.html", Path("both.html")):
        assert page.is_file()
    assert not (other / "report.html").exists()


def test_what_is_no_run_folder_is_passed_over_and_named(tmp_path: Path) -> None:
    one, other = run_in(tmp_path / "runs/one"), run_in(tmp_path / "runs/other", seed=1)
    (tmp_path / "runs/stopped").mkdir()
    (tmp_path / "runs/finding-comparison.html").touch()
    for _ in range(2):  # the second time its own page is among them
        said: list[str] = []
        entries = sorted((tmp_path / "runs").iterdir())
        assert report_runs(entries, notify=said.append) == (tmp_path / "runs/comparison.html",)
        passed = [entry for entry in entries if entry not in (one, other)]
        assert [line.split(":")[0] for line in said] == [f"passed over {shown(entry)}" for entry in passed]
    with pytest.raises(DataError, match=r"none of .*stopped, .*comparison.html is a run folder"):
        report_runs([tmp_path / "runs/stopped", tmp_path / "runs/comparison.html"])
    with pytest.raises(DataError, match="is not a run"):
        report_runs([tmp_path / "runs/stopped"])


def test_runs_of_several_tasks_get_a_page_each(tmp_path: Path) -> None:
    view = make_view()
    for name in ("first", "second"):
        task = replace(view.task, name=name)
        for seed in (0, 1):
            result = probed(replace(view, task=task), draws=5, family=GRID, seed=seed)
            save_run(tmp_path / f"{name}{seed}", result)
    folders = sorted(tmp_path.iterdir())
    pages = report_runs(folders)
    assert pages == (tmp_path / "comparison-first.html", tmp_path / "comparison-second.html")
    assert "first" in pages[0].read_text()
    with pytest.raises(UsageError, match="found runs of the tasks first, second"):
        report_runs(folders, out=tmp_path / "one.html")


def test_runs_without_a_folder_in_common_need_a_name_for_their_page(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="have no folder in common: name the page with --out"):
        _default_page([tmp_path, Path("/elsewhere/run")], "")


def pictures_in(page: Path) -> int:
    return page.read_text().count("data:image/jpeg;base64,")


def test_pictures_stay_on_the_page_and_are_drawn_or_left_out_on_request(
    phantom: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs/r"
    options = ProbeOptions(preset="google-lr", draws=5)
    probe_store(ProbeJob(stores=[phantom / "mura.store"], options=options, out=folder, thumbnails=True))
    page = folder / "report.html"
    drawn = pictures_in(page)
    assert drawn > 0
    report_runs([folder])
    assert pictures_in(page) == drawn
    report_runs([folder], out=tmp_path / "shared.html", thumbnails=False)
    assert pictures_in(tmp_path / "shared.html") == 0
    report_runs([folder], thumbnails=False)
    said: list[str] = []
    report_runs([folder], notify=said.append)
    assert pictures_in(page) == 0
    assert said == [
        "no pictures of errors: the run's page has none; `thumbnails=True` draws them from its store"
    ]
    report_runs([folder], thumbnails=True, stores=[phantom / "mura.store"])
    assert pictures_in(page) == drawn


def test_a_store_is_found_beside_the_runs_or_missed_by_name(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ProbeOptions(preset="google-lr", draws=5)
    folder = probe_store(
        ProbeJob(stores=[phantom / "mura.store"], options=options, out=tmp_path / "runs/r")
    ).folder
    said: list[str] = []
    report_runs([folder], thumbnails=True, notify=said.append)
    assert said[0].startswith("runs/r: no pictures from a store: the run names mura.store")
    assert pictures_in(folder / "report.html") == 0
    (tmp_path / "mura.store").symlink_to(phantom / "mura.store")
    report_runs([folder], thumbnails=True)
    assert pictures_in(folder / "report.html") > 0
