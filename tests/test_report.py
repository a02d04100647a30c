"""The page: self-contained, escaped, deterministic, with the numbers of its runs."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from embedstore.errors import UsageError
from heads.comparison import compare_runs
from heads.confident_errors import confident_errors
from heads.learning_curve import learning_curve
from heads.logistic import LogisticFamily
from heads.probe import probe
from heads.report import render_report, save_report
from heads.run import Run, load_run, save_run
from tests.views import make_view

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
    return save_run(tmp_path_factory.mktemp("one") / "run", probe(make_view(), draws=50, family=GRID))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    result = probe(make_view(), draws=50, family=GRID, pooling="max-vector")
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
    assert sum(counts) == run.document["counts"]["units_judged"]


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
    page = render_report([save_run(tmp_path / "run", probe(hostile, draws=20, family=GRID))])
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
    stranger = save_run(tmp_path / "run", probe(make_view(seed=5), draws=20, family=GRID))
    assert compare_runs([run, stranger]) == []
    assert "nothing is paired" in render_report([run, stranger])


def test_several_classes_and_targets_have_a_page(tmp_path: Path) -> None:
    view = make_view(classes=("mild", "moderate", "severe"), targets=("left", "right"), signal=3.0)
    text = _read(render_report([save_run(tmp_path / "run", probe(view, draws=20, family=GRID))])).text
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
    rows = [row for row in run.predictions.to_pylist() if row["split"] == "test"]
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
    curve = learning_curve(view, sizes=(4, 40, 60), draws=20, repeats=2, family=GRID)
    result = replace(probe(view, draws=20, family=GRID), learning_curve=curve)
    page = render_report([save_run(tmp_path / "run", result)])
    assert 'aria-label="learning curve"' in page
    assert "4 patients skipped" in _read(page).text
