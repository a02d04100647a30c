"""The page: self-contained, escaped, deterministic, with the numbers of its runs."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cli.main import run as embed
from embedstore.errors import UsageError
from embedstore.view import Source
from heads.estimators.logistic import LogisticFamily
from heads.protocol.learning_curve import learning_curve
from heads.protocol.options import ProbeOptions
from heads.reporting.page import render_report, save_report
from heads.reporting.words import preprocess_rows
from heads.runs.comparison import compare_runs, p_value_in_words
from heads.runs.confident_errors import confident_errors
from heads.runs.run import Run
from heads.runs.run_files import load_run, save_run
from heads.statistics.bootstrap import Difference, Estimate
from tests.views import make_view, probed

GRID = LogisticFamily(strengths=(0.1, 10.0), normalisations=("none",))


class _Page(HTMLParser):
    """Collects what a page would load, its ids, its text, and whether tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br", "link", "img"}:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src", "xlink:href"}:
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(page: str) -> _Page:
    parsed = _Page()
    parsed.feed(page)
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return save_run(tmp_path_factory.mktemp("one") / "run", probed(make_view(), draws=50, family=GRID))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    result = probed(make_view(), draws=50, family=GRID, pooling="max-vector")
    return save_run(tmp_path_factory.mktemp("other") / "run", result)


def test_a_page_loads_nothing(run: Run) -> None:
    page = render_report([run])
    parsed = _read(page)
    assert not {"script", "link", "iframe", "img", "object"} & set(parsed.tags)
    assert all(address.startswith("#") for address in parsed.addresses)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_ids_are_unique_on_a_page_of_several_charts(run: Run, other: Run) -> None:
    ids = _read(render_report([run, other])).ids
    assert len(ids) == len(set(ids))


def test_a_page_shows_the_headline_numbers_with_interval_and_n(run: Run) -> None:
    text = _read(render_report([run])).text
    for metric in ("auroc", "kappa", "log_loss", "ece"):
        entry = run.document["metrics"][metric]
        assert f"{entry['value']:.3f}" in text
        assert f"[{entry['low']:.3f}, {entry['high']:.3f}]" in text
        assert f"n = {entry['n']}" in text


def test_a_page_says_what_it_is_and_how_it_came_about(run: Run) -> None:
    text = _read(render_report([run])).text
    assert "Research software, not a medical device." in text
    assert run.document["identity_sha256"] in text
    assert "failed: unreadable: 2" in text
    assert "XR_WRIST" in text
    assert "Official split" in text


def test_the_confusion_table_adds_up_to_the_units(run: Run) -> None:
    parsed = re.search(r"half \(0\.500\).*?</table>", render_report([run]), re.DOTALL)
    assert parsed is not None
    counts = [int(count) for count in re.findall(r'<td class="n">(\d+)</td>', parsed.group())]
    assert len(counts) == 4
    assert sum(counts) == run.document["counts"]["units_evaluated"]


def test_text_in_charts_is_text_and_colours_follow_the_theme(run: Run) -> None:
    page = render_report([run])
    assert re.search(r"<text[^>]*>stated probability</text>", page)
    assert "currentColor" in page
    assert "var(--series-1)" in page
    assert "prefers-color-scheme: dark" in page
    # A chart with a ground of its own would be a white sheet on a dark page.
    assert "#ffffff" not in page[page.index("<svg") :]
    assert "@media print" in page
    assert not re.search(r"#(010203|040506|0a0b0\d)", page)


def test_the_same_run_gives_the_same_page(run: Run) -> None:
    assert render_report([run]) == render_report([load_run(run.folder)])


def test_names_from_the_data_are_escaped(tmp_path: Path) -> None:
    view = make_view(classes=("<script>alert(1)</script>", "a & $b$"), targets=("<b>bold</b>",))
    hostile = replace(view, excluded={"<img src=x>": 1}, subgroups={"anatomy": view.patients.astype("<U30")})
    hostile.subgroups["anatomy"][:] = "<i>wrist</i>"
    page = render_report([save_run(tmp_path / "run", probed(hostile, draws=20, family=GRID))])
    parsed = _read(page)
    assert not {"script", "img", "i"} & set(parsed.tags)
    assert "<b>bold" not in page
    assert "a & $b$" in parsed.text


def test_runs_of_the_same_units_are_compared_in_pairs(run: Run, other: Run) -> None:
    comparisons = compare_runs([run, other], draws=100)
    assert {comparison.metric for comparison in comparisons} == {"auroc", "log_loss", "brier", "kappa"}
    for comparison in comparisons:
        worse = [run, other][comparison.run].document["metrics"][comparison.metric]["value"]
        best = [run, other][comparison.best].document["metrics"][comparison.metric]["value"]
        assert comparison.difference.estimate.value == pytest.approx(worse - best)
        assert 0 < comparison.difference.p_value <= comparison.corrected_p <= 1
    assert "paired on the same patients" in render_report([run, other])


def test_runs_of_other_units_are_shown_side_by_side_only(run: Run, tmp_path: Path) -> None:
    stranger = save_run(tmp_path / "run", probed(make_view(seed=5), draws=20, family=GRID))
    assert compare_runs([run, stranger]) == []
    assert "nothing is paired" in render_report([run, stranger])


def test_several_classes_and_targets_have_a_page(tmp_path: Path) -> None:
    view = make_view(classes=("mild", "moderate", "severe"), targets=("left", "right"), signal=3.0)
    text = _read(render_report([save_run(tmp_path / "run", probed(view, draws=20, family=GRID))])).text
    assert "Target left" in text
    assert "Target right" in text
    assert "likeliest class" in text


def test_a_page_is_saved_beside_its_run(run: Run, tmp_path: Path) -> None:
    save_report(tmp_path / "report.html", [run])
    assert (tmp_path / "report.html").read_text() == render_report([run])


def test_a_report_of_no_run_is_refused() -> None:
    with pytest.raises(UsageError, match="one run or more"):
        render_report([])


def test_a_page_holds_the_curves_sets_errors_and_doubtful_labels(run: Run) -> None:
    page = render_report([run])
    text = _read(page).text
    for title in ("decision curve", "abstention curve"):
        assert f'aria-label="{title}"' in page
    entry = run.document["conformal_sets"]["finding"]["coverage"]
    assert "Conformal sets at 90 %" in text
    assert f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]" in text
    errors = confident_errors(run)
    assert len(errors) > 3
    assert all(error.unit_id in text for error in errors)
    assert [error.probability for error in errors] == sorted((e.probability for e in errors), reverse=True)
    assert run.label_noise.num_rows > 0
    assert run.label_noise.column("unit_id")[0].as_py() in text
    assert "learning curve" not in text.lower()


def test_confident_errors_are_wrong_and_the_surest(run: Run) -> None:
    rows = [row for row in run.predictions.to_pylist() if row["role"] == "evaluation"]
    wrong = [
        max(row["prob_normal"], row["prob_abnormal"])
        for row in rows
        if (row["prob_abnormal"] >= row["prob_normal"]) != (row["label"] == "abnormal")
    ]
    found = [error.probability for error in confident_errors(run, limit=5)]
    assert found == sorted(wrong, reverse=True)[:5]


def test_thumbnails_are_embedded_beside_the_errors_they_belong_to(run: Run) -> None:
    unit_id = confident_errors(run)[0].unit_id
    page = render_report([run], thumbnails={unit_id: b"jpeg", "stranger": b"other"})
    parsed = _read(page)
    assert parsed.tags.count("img") == 1
    assert f"data:image/jpeg;base64,{base64.b64encode(b'jpeg').decode()}" in parsed.addresses


def test_a_learning_curve_is_drawn_and_its_gaps_are_named(tmp_path: Path) -> None:
    view = make_view()
    curve = learning_curve(view, ProbeOptions(draws=20), sizes=(4, 40, 60), repeats=2, family=GRID)
    result = replace(probed(view, draws=20, family=GRID), learning_curve=curve)
    page = render_report([save_run(tmp_path / "run", result)])
    assert 'aria-label="learning curve"' in page
    assert "4 patients skipped" in _read(page).text


def test_a_page_names_the_data_and_a_phantom(tmp_path: Path) -> None:
    sources = (Source("a.store", "mura", "MURA-v1.1", phantom=True), Source("b.store", "table", "<clinic>"))
    run = save_run(tmp_path / "run", probed(make_view(sources=sources), draws=20, family=GRID))
    text = _read(render_report([run])).text
    assert "mura (MURA-v1.1) in a.store, phantom: computer-drawn images, not patients" in text
    assert "table (<clinic>) in b.store" in text
    assert "Some of the data is a phantom" in text
    only = save_run(tmp_path / "only", probed(make_view(sources=sources[:1]), draws=20, family=GRID))
    assert "The data is a phantom" in _read(render_report([only])).text


def test_a_page_of_unnamed_data_says_so(run: Run) -> None:
    text = _read(render_report([run])).text
    assert "not named by the run" in text
    assert "computer-drawn" not in text


def test_bins_prevalence_and_counts_of_classes_are_on_the_page(run: Run) -> None:
    text = _read(render_report([run])).text
    labels = [row["label"] for row in run.predictions.to_pylist() if row["role"] == "evaluation"]
    assert run.document["ece_bins"] == {"finding": len(labels) // 20}
    assert f"here {len(labels) // 20} bins" in text
    assert f"the prevalence: {labels.count('abnormal') / len(labels):.3f}" in text
    evaluated = run.document["classes"]["evaluated"]["finding"]
    assert {name: entry["units"] for name, entry in evaluated.items()} == {
        name: labels.count(name) for name in ("normal", "abnormal")
    }
    cells = run.document["classes"]["by_subgroup"]["anatomy"]
    for name, entry in evaluated.items():
        assert sum(cell["finding"][name]["units"] for cell in cells.values()) == entry["units"]
        assert 0 < entry["patients"] <= entry["units"]
    fitted = run.document["classes"]["fitted"]["finding"]
    assert sum(entry["units"] for entry in fitted.values()) == run.document["counts"]["units_fitted"]


def test_a_missing_interval_is_explained_and_an_empty_panel_left_out(tmp_path: Path) -> None:
    view = make_view(patients=60)
    constant = replace(view, X=np.zeros_like(view.X))
    page = render_report([save_run(tmp_path / "run", probed(constant, draws=20, family=GRID))])
    text = _read(page).text
    assert "[–]: no interval, because all draws agree" in text
    assert "No abstention curve" in text
    assert 'aria-label="abstention curve"' not in page


def test_two_classes_show_one_kappa_and_names_are_those_of_the_axes(run: Run) -> None:
    page = render_report([run])
    assert "quadratic_kappa" not in run.document["metrics"]
    assert "quadratic kappa" not in page
    assert re.search(r"<text[^>]*>sensitivity \(recall\)</text>", page)
    assert "<td>sensitivity (recall)</td>" in page
    assert "undone in the probabilities" not in page


def test_tables_repeat_their_heads_in_print_and_intervals_do_not_wrap(run: Run) -> None:
    page = render_report([run])
    assert "thead { display: table-header-group; }" in page
    assert page.count("<thead>") > 5
    entry = run.document["metrics"]["auroc"]
    assert f'<span class="whole">[{entry["low"]:.3f}, {entry["high"]:.3f}]</span>' in page


def test_runs_of_the_same_head_are_told_apart_and_the_best_comes_first(run: Run, tmp_path: Path) -> None:
    worse = make_view()
    worse = replace(
        worse, X=worse.X * 0 + np.random.default_rng(0).normal(size=worse.X.shape).astype(np.float32)
    )
    noise = save_run(tmp_path / "noise", probed(worse, draws=50, family=GRID))
    text = _read(render_report([noise, run])).text
    first, second = text.index("logistic, run ("), text.index("logistic, noise (")
    assert first < second
    assert "chosen on this same evaluation set" in text


def test_runs_of_different_tasks_are_refused(run: Run, tmp_path: Path) -> None:
    view = make_view(classes=("no", "yes"))
    other = save_run(tmp_path / "run", probed(view, draws=20, family=GRID))
    with pytest.raises(
        UsageError, match=r"of one task; found 'phantom' \(study level; normal, abnormal\) in .* no, yes"
    ):
        render_report([run, other])


@pytest.mark.parametrize(
    ("p_value", "own", "smallest", "written"),
    [
        (2 / 2001, 2 / 2001, 2 / 2001, "<= 0.001"),
        (6 / 2001, 2 / 2001, 2 / 2001, "<= 0.003"),
        (2 / 51, 2 / 51, 2 / 51, "<= 0.04"),
        (2 / 10_001, 2 / 10_001, 2 / 10_001, "<= 0.0002"),
        (0.012, 0.004, 2 / 2001, "0.0120"),
    ],
)
def test_a_p_value_that_no_draw_can_undercut_is_a_bound(
    p_value: float, own: float, smallest: float, written: str
) -> None:
    difference = Difference(Estimate(0.1, 0.05, 0.15, 100), own, smallest)
    assert p_value_in_words(p_value, difference) == written


def test_a_preprocess_reads_as_terms() -> None:
    preprocess = {
        "preset": "pad",
        "size_px": 448,
        "recipes": {"": {"name": "radiograph"}, "CT": {"windows_hu": [[-1024.0, 1024.0], [0.0, 80.0]]}},
    }
    assert preprocess_rows(preprocess) == [
        ("preset", "pad"),
        ("size px", "448"),
        ("recipes, other", "name radiograph"),
        ("recipes, CT", "windows hu -1024 to 1024, 0 to 80"),
    ]


def test_a_page_of_several_runs_goes_beside_them(
    run: Run, other: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = run.folder / "report.html"
    save_report(own, [run])
    before = own.read_bytes()
    beside = run.folder.parent.parent
    monkeypatch.chdir(beside)
    assert embed(["report", str(run.folder), str(other.folder)]) == 0
    assert capsys.readouterr().out == "wrote comparison.html\n"
    assert "paired on the same patients" in (beside / "comparison.html").read_text()
    assert own.read_bytes() == before


def test_a_task_without_a_positive_class_has_no_curve_of_acting_and_says_so(tmp_path: Path) -> None:
    view = make_view(classes=("one", "other", "third"), signal=3.0)
    nominal = save_run(tmp_path / "nominal", probed(view, draws=20, family=GRID))
    page = render_report([nominal])
    assert (
        "No reliability diagram and no decision curve: the task names no class to act on" in _read(page).text
    )
    assert "Reliability of" not in page
    task = replace(view.task, positive="other", ordered=True)
    graded = save_run(tmp_path / "graded", probed(replace(view, task=task), draws=20, family=GRID))
    page = render_report([graded])
    assert "Reliability of “other”" in page
    assert "Decision curve of “other”" in page
    assert "<td>quadratic kappa</td>" in page
