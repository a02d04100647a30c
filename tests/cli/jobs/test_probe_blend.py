"""A blend from Python: its parts are fitted once, its run needs no other, and what cannot run is said."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.jobs.open_probe import ProbeJob
from cli.jobs.probe_all import probe_all
from cli.jobs.probe_blend import probe_blend
from cli.jobs.probe_store import probe_store
from cli.main import run
from embedstore.errors import UsageError
from embedstore.queries.load_view import load_view
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe
from heads.runs.run_files import load_run

OPTIONS = ProbeOptions(draws=20, folds=3)


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The heads that were fitted, in order."""
    names: list[str] = []

    def fits(view: Any, options: Any, **given: Any) -> Any:
        names.append(options.head)
        return probe(view, options, **given)

    for module in ("probe_store", "probe_blend"):
        monkeypatch.setattr(f"cli.jobs.{module}.probe", fits)
    return names


def heads(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    for module in ("probe_all", "probe_blend"):
        monkeypatch.setattr(f"cli.jobs.{module}.head_names", lambda: list(names))


def test_all_heads_end_with_their_blend_and_no_head_is_fitted_twice(
    store: Path, fitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads(monkeypatch, ["knn", "logistic", "nothing"])
    job = ProbeJob(stores=[store], options=OPTIONS)
    compared = probe_all(job)
    assert fitted == ["knn", "logistic"]
    assert list(compared.runs) == ["knn", "logistic", "blend"]
    blended = compared.runs["blend"]
    assert blended.folder == Path("runs/abnormal-blend-folds-3")
    assert list(blended.document["heads"][0]["point"]) == ["knn", "logistic"]
    assert ("blend", "auroc") in compared.differences or ("knn", "auroc") in compared.differences
    # Again: all are kept. A part that is missing is fitted again, and the blend of equal inputs is kept.
    said: list[str] = []
    again = probe_all(job, notify=said.append)
    assert fitted == ["knn", "logistic"]
    assert said[-1].startswith("blend: kept, equal inputs made the run of 20")
    assert again.runs["blend"].document == blended.document
    shutil.rmtree("runs/abnormal-knn-folds-3")
    probe_all(job, notify=said.append)
    assert fitted == ["knn", "logistic", "knn"]
    assert said[-1].startswith("blend: kept")


def test_a_blend_answers_without_the_runs_of_its_parts_and_is_the_same_however_it_was_made(
    store: Path, fitted: list[str]
) -> None:
    options = ProbeOptions(draws=20, folds=3, cross_validate=True)
    job = ProbeJob(stores=[store], options=options, parts=["logistic", "knn"])
    first = probe_blend(job)
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "abnormal-blend-of-knn+logistic-cv-folds-3"
    ]
    probe_store(ProbeJob(stores=[store], options=ProbeOptions(head="knn", **changed(options))))
    said: list[str] = []
    second = probe_blend(
        ProbeJob(stores=[store], options=options, parts=["knn", "logistic"], out="again"), notify=said.append
    )
    # Fitted: both, knn for itself, and then only the one that had no run.
    assert fitted == ["knn", "logistic", "knn", "logistic"]
    assert said[0].startswith("knn: taken from the run of 20")
    assert second.document["sha256"] == first.document["sha256"]
    assert set(second.timing["seconds"]) == {"logistic", "blend", "evaluate"}
    shutil.rmtree("runs")
    loaded = load_run("again")
    view = load_view(store, "abnormal")
    assert np.array_equal(
        loaded.predict(view.X, view.unit_of_image), first.predict(view.X, view.unit_of_image)
    )


def changed(options: ProbeOptions) -> dict[str, Any]:
    return {"draws": options.draws, "folds": options.folds, "cross_validate": options.cross_validate}


def test_a_blend_of_all_says_which_heads_it_left_out(
    store: Path, fitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads(monkeypatch, ["knn", "nothing"])
    said: list[str] = []
    found = probe_blend(ProbeJob(stores=[store], options=OPTIONS), notify=said.append)
    assert fitted == ["knn"]
    assert len(said) == 1
    assert said[0].startswith("nothing: left out of the blend: `head`: no head named 'nothing'")
    assert found.document["heads"][0]["point"] == {"knn": 1.0}
    heads(monkeypatch, ["nothing"])
    with pytest.raises(UsageError, match="no head named 'nothing'"):
        probe_blend(ProbeJob(stores=[store], options=OPTIONS, out="none"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--head", "blend", "--parts", "logistc"], "--parts: no head named 'logistc'"),
        (["--head", "blend", "--parts", "blend"], "--parts: no head named 'blend'"),
        (["--head", "blend", "--parts", "knn,knn"], "--parts must be different heads; found 'knn' twice"),
        (["--head", "blend", "--parts", "knn,"], "names of heads with commas between them; found 'knn,'"),
        (["--head", "knn", "--parts", "knn"], "--parts names the heads that --head blend joins"),
        (["--head", "blend", "--parts", "knn", "--no-bank"], "--head knn is made of the vectors"),
    ],
)
def test_parts_that_cannot_be_meant_are_refused_in_one_line(
    store: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert run(["probe", "--store", str(store), "--draws", "5", *given]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert not Path("runs").exists()


def test_a_stopped_blend_says_what_stays(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.jobs.probe_blend.probe", stop)
    assert run(["probe", "--store", str(store), "--head", "blend", "--parts", "knn"]) == 130
    assert "nothing is kept in runs/abnormal-blend-of-knn; run again to start over" in capsys.readouterr().err


def test_the_summary_and_predictions_of_a_blend_are_those_of_any_run(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["probe", "--store", str(store), "--head", "blend", "--parts", "knn,logistic"]
    assert run([*arguments, "--draws", "20", "--folds", "3", "--verbose"]) == 0
    printed = capsys.readouterr()
    assert "abnormal: weights knn " in printed.out
    assert "blend, head 2 of 2: logistic, selection" in printed.err
    assert "blend, weights and calibration" in printed.err
    folder = "runs/abnormal-blend-of-knn+logistic-folds-3"
    assert run(["predict", "--probe", folder, str(store)]) == 0
    assert '"probabilities"' in capsys.readouterr().out
