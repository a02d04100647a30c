"""A probe of a store from Python: the run it leaves, what it says, and what it refuses before anything is fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.jobs.open_probe import ProbeJob, open_probe
from cli.jobs.probe_store import probe_store
from embedstore.errors import UsageError
from embedstore.queries.load_view import load_view
from embedstore.store.reader import open_store
from heads.estimators.presets import preset_family
from heads.protocol.options import ProbeOptions
from heads.protocol.probe import probe

QUICK = ProbeOptions(preset="google-lr", draws=20)


def test_a_run_and_its_report_are_left_where_task_preset_and_options_say(store: Path) -> None:
    said: list[str] = []
    job = ProbeJob(stores=[str(store)], options=ProbeOptions(preset="google-lr", draws=20, seed=3))
    run = probe_store(job, notify=said.append)
    assert said == []
    assert run.folder == Path("runs/abnormal-google-lr-seed-3")
    assert (run.folder / "report.html").is_file()
    settings = json.loads((run.folder / "run.json").read_text())["settings"]
    assert (settings["head"], settings["preset"], settings["seed"]) == ("logistic", "google-lr", 3)
    again = probe_store(job, notify=said.append)
    assert len(said) == 1
    assert said[0].startswith(f"equal inputs, equal result: {run.run_id} is the same as the run of 20")
    assert again.document == run.document
    other = ProbeOptions(preset="google-lr", draws=20, seed=4)
    probe_store(ProbeJob(stores=[store], options=other, out=run.folder), notify=said.append)
    assert said[1].startswith("replaces the run of 20")
    assert said[1].endswith("UTC in runs/abnormal-google-lr-seed-3")


def test_repeats_of_a_head_that_has_none_are_said_to_change_nothing(store: Path) -> None:
    said: list[str] = []
    probe_store(ProbeJob(stores=[store], options=ProbeOptions(draws=20, repeats=3)), notify=said.append)
    assert said == ["`repeats=3` changed nothing: logistic was refitted, once, on all"]


def test_equal_inputs_with_another_result_are_said(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    probe_store(ProbeJob(stores=[store], options=QUICK, out="r"))
    # As if a library had changed without its version.
    monkeypatch.setattr("heads.runs.run_document.warnings_of", lambda _result: [])
    monkeypatch.setattr("heads.runs.run_document.FORMAT_VERSION", 4.5)
    monkeypatch.setattr("heads.runs.run_files.READ_VERSIONS", (4.5, 6))
    probe_store(ProbeJob(stores=[store], options=QUICK, out="r"), notify=said.append)
    assert "gave another result, by another processor" in said[0]


def test_ctrl_c_says_that_the_run_from_before_stays(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    said: list[str] = []
    job = ProbeJob(stores=[store], options=QUICK, out="r")
    with monkeypatch.context() as stopped:
        stopped.setattr("cli.jobs.probe_store.probe", stop)
        with pytest.raises(KeyboardInterrupt):
            probe_store(job, notify=said.append)
    probe_store(job)
    monkeypatch.setattr("cli.jobs.probe_store.probe", stop)
    with pytest.raises(KeyboardInterrupt):
        probe_store(job, notify=said.append)
    assert said[0] == "nothing is kept in r; run again to start over"
    assert said[1].startswith("the run of 20")
    assert said[1].endswith("in r stays as it was")


def test_the_run_holds_what_the_protocol_says_of_the_same_vectors(store: Path) -> None:
    run = probe_store(ProbeJob(stores=[store], options=QUICK, out="here"))
    result = probe(load_view(open_store(store)), QUICK, family=preset_family("google-lr")[1])
    rows = [
        row for row in pq.read_table("here/predictions.parquet").to_pylist() if row["role"] == "evaluation"
    ]
    assert run.folder == Path("here")
    assert [row["unit_id"] for row in rows] == result.evaluated.unit_ids.tolist()
    assert [row["prob_abnormal"] for row in rows] == result.evaluated.probabilities[:, 0, 1].tolist()


def test_a_learning_curve_and_metadata_are_part_of_the_run_and_of_its_name(store: Path) -> None:
    options = ProbeOptions(
        preset="google-lr", draws=20, learning_curve=True, with_columns=["anatomy"], cross_validate=True
    )
    run = probe_store(ProbeJob(stores=[store], options=options))
    assert run.folder.name == "abnormal-google-lr-with-anatomy-cv-curve"
    assert run.document["settings"]["metadata"] == ["anatomy"]
    assert run.document["settings"]["mode"] == "outer cross-validation"
    # Forty patients are fewer than the smallest of the usual sizes: all of those that may be learned from.
    assert len(run.document["learning_curve"]["points"]) == 1
    assert "learning_curve" in run.timing["seconds"]


@pytest.mark.parametrize(
    ("own", "name"),
    [(None, "abnormal-mlp"), ("mura.store", "abnormal-mlp"), ("b.store", "abnormal-mlp-on-mura")],
)
def test_a_store_that_is_not_the_projects_own_is_named(phantom: Path, own: str | None, name: str) -> None:
    job = ProbeJob(stores=[phantom / "mura.store"], own_store=None if own is None else phantom / own)
    assert open_probe(job).place("mlp") == Path("runs") / name


def test_a_choice_is_among_all_ways_that_the_vectors_allow(store: Path) -> None:
    said: list[str] = []
    options = ProbeOptions(select_inputs=True, with_columns=["anatomy"])
    opened = open_probe(ProbeJob(stores=[store], options=options), notify=said.append)
    # Studies have several images: three poolings, each without and with the anatomy.
    assert len(opened.options.ways(opened.view)) == 6
    assert said == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ProbeOptions(head="mlp", preset="google-lr"), "brings its own head, 'logistic'; leave head='mlp'"),
        (ProbeOptions(preset="google"), "no preset named 'google'"),
        (ProbeOptions(with_columns=["patient_id"]), "patient_id says which image this is"),
        (ProbeOptions(targets=["colour"]), "has no target"),
        (ProbeOptions(head="zeroshot"), "has no text tower"),
        ("xgbost", "Did you mean 'xgboost'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    store: Path, options: ProbeOptions | str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        probe_store(ProbeJob(stores=[store], options=options))
    assert not Path("runs").exists()


def test_a_place_among_other_files_is_refused_before_anything_is_fitted(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.jobs.probe_store.probe", lambda *_, **__: pytest.fail("fits"))
    Path("notes").mkdir()
    Path("notes/diary.txt").touch()
    with pytest.raises(UsageError, match=r"notes must be new, empty or a run; it holds diary.txt"):
        probe_store(ProbeJob(stores=[store], options=QUICK, out="notes"))


def test_pictures_of_errors_are_shown_only_where_they_are_asked_for(store: Path) -> None:
    shown = []
    for thumbnails in (False, True):
        probe_store(ProbeJob(stores=[store], options=QUICK, out="r", thumbnails=thumbnails))
        shown.append(Path("r/report.html").read_text().count("data:image/jpeg;base64,"))
    assert shown[0] == 0
    assert shown[1] > 0
    # The same run again does not lose them, another one does not inherit them.
    probe_store(ProbeJob(stores=[store], options=QUICK, out="r"))
    assert Path("r/report.html").read_text().count("data:image/jpeg;base64,") == shown[1]
    probe_store(ProbeJob(stores=[store], options=replace(QUICK, seed=1), out="r"))
    assert "data:image/jpeg;base64," not in Path("r/report.html").read_text()
