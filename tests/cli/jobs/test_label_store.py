"""A task from a table: what it replaces is said, and extraction leaves it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.jobs.label_store import LabelJob, label_store
from cli.main import run
from embedstore.phantoms.mura import write_phantom_mura
from embedstore.store.reader import open_store
from embedstore.store.tasks import read_task, write_task

EXTRACT = ["extract", "--dataset", "mura", "--root", "MURA-v1.1", "--store", "s", "--encoder", "hog"]


@pytest.fixture
def store(tmp_path, monkeypatch, capsys):
    """A store with the data set's task, and ``own.csv`` with other labels: the first study yes, the others no."""
    monkeypatch.chdir(tmp_path)
    write_phantom_mura(tmp_path, patients=6, seed=0)
    assert run(EXTRACT) == 0
    studies = sorted(set(open_store("s").table.column("study_id").to_pylist()))
    lines = [f"{study},{'no' if number else 'yes'}" for number, study in enumerate(studies)]
    Path("own.csv").write_text("study_id,mine\n" + "\n".join(lines) + "\n")
    capsys.readouterr()
    return Path("s")


def job():
    return LabelJob(table=Path("own.csv"), name="abnormal", classes=("no", "yes"))


def test_a_task_that_is_replaced_is_said_with_its_counts_and_origin(store):
    labels = read_task(store, "abnormal").labels.column("abnormal").to_pylist()
    normal, abnormal = labels.count("normal"), labels.count("abnormal")
    told = []
    done = label_store(store, job(), notify=told.append)
    assert told == [
        f"replaces task abnormal ({normal} normal, {abnormal} abnormal), which the data set mura brings"
    ]
    assert done.labels == {"mine": len(labels)}
    again = []
    label_store(store, job(), notify=again.append)
    assert again == [f"replaces task abnormal ({len(labels) - 1} no, 1 yes), which `embed label` wrote"]


def test_extraction_keeps_a_labelled_task_and_says_so_until_it_is_removed(store, capsys):
    label_store(store, job())
    assert run(EXTRACT) == 0
    assert "task abnormal is kept as `embed label` wrote it; remove tasks/abnormal" in capsys.readouterr().err
    assert read_task(store, "abnormal").targets == ("mine",)
    for file in (store / "tasks" / "abnormal").iterdir():
        file.unlink()
    (store / "tasks" / "abnormal").rmdir()
    assert run(EXTRACT) == 0
    assert "task abnormal" not in capsys.readouterr().err
    assert read_task(store, "abnormal").targets == ("abnormal",)


def test_extraction_says_that_it_replaces_a_task_of_the_data_set(store, capsys):
    label_store(store, job())
    write_task(store, read_task(store, "abnormal"), source="dataset")
    assert json.loads((store / "tasks" / "abnormal" / "task.json").read_text())["source"] == "dataset"
    assert run(EXTRACT) == 0
    assert (
        "task abnormal is written anew: the store's is not the one that the data set brings"
        in capsys.readouterr().err
    )
    assert read_task(store, "abnormal").targets == ("abnormal",)


def test_label_takes_words_for_missing_values_and_columns_as_they_are_written(store, capsys):
    """Both options are named where a table is refused, so they exist there."""
    lines = Path("own.csv").read_text().splitlines()
    lines[2] = lines[2].replace(",no", ",unknown")
    Path("own.csv").write_text("\n".join(lines) + "\n")
    label = ["label", "s", "--name", "own", "--csv", "own.csv"]
    assert run(label) == 1
    refusal = capsys.readouterr().err
    assert "'unknown' (1 row): a class, or no label? Name it with --missing 'unknown'" in refusal
    assert "--as-written mine" in refusal
    assert run([*label, "--missing", "unknown"]) == 0
    assert "'unknown' taken as missing" in capsys.readouterr().out
    assert read_task(store, "own").labels.column("mine").null_count == 1
    assert run([*label, "--as-written", "mine"]) == 0
    assert read_task(store, "own").classes == ("no", "unknown", "yes")
    assert run([*label, "--as-written", "grade"]) == 1
    assert "as_written needs the column 'grade'; found study_id, mine" in capsys.readouterr().err
