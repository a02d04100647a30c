"""Every head on one task from Python: runs, reasons of those that could not run, differences, one load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.jobs.probe_all import probe_all
from cli.jobs.probe_store import ProbeJob
from embedstore.errors import UsageError
from embedstore.queries.load_view import load_views
from embedstore.store.reader import open_store
from heads.protocol.options import ProbeOptions


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

    monkeypatch.setattr("cli.jobs.probe_store.open_store", opens)
    monkeypatch.setattr("cli.jobs.probe_store.load_views", loads)
    heads(monkeypatch, ["knn", "logistic", "nothing"])
    compared = probe_all(ProbeJob(stores=[store], options=ProbeOptions(draws=20), out="heads"))
    assert counts == {"opened": 1, "loaded": 1}
    assert [(name, run.folder) for name, run in compared.runs.items()] == [
        ("knn", Path("heads/knn")),
        ("logistic", Path("heads/logistic")),
    ]
    assert {run.document["settings"]["head"] for run in compared.runs.values()} == {"knn", "logistic"}
    assert list(compared.skipped) == ["nothing"]
    assert "no head named 'nothing'" in str(compared.skipped["nothing"])
    # By each metric one of the two is the best, and the other differs from it.
    metrics = [metric for _, metric in compared.differences]
    assert "auroc" in metrics
    assert len(metrics) == len(set(metrics))
    assert compared.report == Path("heads/comparison.html")
    assert compared.report.is_file()


def test_where_no_head_can_run_the_first_reason_is_raised(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads(monkeypatch, ["first", "second"])
    with pytest.raises(UsageError, match="no head named 'first'"):
        probe_all(ProbeJob(stores=[store], options=ProbeOptions(draws=20)))
