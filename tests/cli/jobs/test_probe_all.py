"""Every head on one task from Python: runs, reasons of those that could not run, differences, one load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.jobs.open_probe import ProbeJob
from cli.jobs.probe_all import probe_all
from embedstore.errors import UsageError
from embedstore.queries.load_view import load_views
from embedstore.store.reader import open_store
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe


def heads(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    monkeypatch.setattr("cli.jobs.probe_all.head_names", lambda: names)


def test_heads_are_compared_on_vectors_that_are_loaded_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"opened": 0, "loaded": 0}

    def opens(path: Path) -> Any:
        counts["opened"] += 1
        return open_store(path)

    def loads(*stores: Any, **options: Any) -> Any:
        counts["loaded"] += 1
        return load_views(*stores, **options)

    monkeypatch.setattr("cli.jobs.open_probe.open_store", opens)
    monkeypatch.setattr("cli.jobs.open_probe.load_views", loads)
    heads(monkeypatch, ["knn", "logistic", "nothing"])
    compared = probe_all(ProbeJob(stores=[store], options=ProbeOptions(draws=20, folds=3), out="heads"))
    assert counts == {"opened": 1, "loaded": 1}
    assert [(name, run.folder) for name, run in compared.runs.items()] == [
        ("knn", Path("heads/knn")),
        ("logistic", Path("heads/logistic")),
        ("blend", Path("heads/blend")),
    ]
    assert {run.document["settings"]["head"] for run in compared.runs.values()} == {
        "knn",
        "logistic",
        "blend",
    }
    assert list(compared.skipped) == ["nothing"]
    assert "no head named 'nothing'" in str(compared.skipped["nothing"])
    # By each metric one of the three is the best, and the others differ from it.
    metrics = [metric for _, metric in compared.differences]
    assert "auroc" in metrics
    assert len(metrics) == 2 * len(set(metrics))
    assert compared.report == Path("heads/comparison.html")
    assert compared.report.is_file()


def test_where_no_head_can_run_the_first_reason_is_raised(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads(monkeypatch, ["first", "second"])
    with pytest.raises(UsageError, match="no head named 'first'"):
        probe_all(ProbeJob(stores=[store], options=ProbeOptions(draws=20, folds=3)))


def test_a_stopped_command_says_what_is_kept_and_goes_on_there(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []

    def fits(view: Any, options: Any, **given: Any) -> Any:
        fitted.append(options.head)
        if options.head == "logistic" and fitted.count("logistic") == 1:
            raise KeyboardInterrupt
        return probe(view, options, **given)

    monkeypatch.setattr("cli.jobs.probe_store.probe", fits)
    heads(monkeypatch, ["knn", "logistic"])
    job = ProbeJob(stores=[store], options=ProbeOptions(draws=20, folds=3), out="heads")
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        probe_all(job, notify=said.append)
    assert said == ["knn is kept in heads/knn; run the same command again to continue"]
    finished: list[str] = []
    compared = probe_all(job, notify=said.append, finished=lambda name, _run: finished.append(name))
    assert fitted == ["knn", "logistic", "logistic"]
    assert finished == list(compared.runs) == ["knn", "logistic", "blend"]
    assert said[1].startswith("knn: kept, equal inputs made the run of 20")
    # Other options are another run.
    other = ProbeJob(stores=[store], options=ProbeOptions(draws=21, folds=3), out="heads")
    probe_all(other, notify=said.append)
    assert fitted[3:] == ["knn", "logistic"]
    assert said[2].startswith("replaces the run of 20")


def test_a_command_stopped_in_its_first_head_keeps_nothing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.jobs.probe_store.probe", stop)
    heads(monkeypatch, ["knn"])
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        probe_all(ProbeJob(stores=[store]), notify=said.append)
    assert said == ["no head had finished; run the same command again to start over"]


def test_a_damaged_run_is_not_taken_for_finished(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads(monkeypatch, ["knn"])
    job = ProbeJob(stores=[store], options=ProbeOptions(draws=20, folds=3), out="heads")
    probe_all(job)
    Path("heads/knn/predictions.parquet").write_bytes(b"")
    said: list[str] = []
    probe_all(job, notify=said.append)
    assert said[0].startswith("equal inputs, equal result")
    assert Path("heads/knn/predictions.parquet").stat().st_size > 0
