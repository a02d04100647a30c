"""Tasks from tables, as typed: `init`, `extract`, `label`, `info` and what a probe then asks by default."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import run
from embedstore.datasets.mura import Mura
from embedstore.datasets.rsna_lumbar import RsnaLumbar
from embedstore.datasets.rsna_pneumonia import RsnaPneumonia
from embedstore.queries.load_view import load_view
from embedstore.store.tasks import read_task
from tests.stores import make_store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight pictures of four patients with findings in a list, a group of columns and a label."""
    monkeypatch.chdir(tmp_path)
    found = ["Mass|Nodule/Mass", "No Finding", "Mass", "Nodule/Mass"] * 2
    lines = ["file,patient,Finding Labels,edema,fluid level,reading"]
    for row, cell in enumerate(found):
        pixels = np.random.default_rng(row).integers(0, 255, (16, 16)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
        reading = "normal" if cell == "No Finding" else "abnormal"
        lines.append(f"{row}.png,P{row // 2},{cell},{(1, 0, -1, '')[row % 4]},{row % 2},{reading}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


INIT = [
    "init", "--dataset", "table", "--root", "t.csv", "--store", "s", "--column", "path={file}", "--column",
    "patient_id=patient", "--label", "Finding Labels", "--label-separator", "Finding Labels=|", "--label", "reading",
    "--label-group", "g=edema,fluid level", "--uncertain", "positive", "--positive", "reading=normal",
    "--unit", "image",
]  # fmt: skip


def test_init_writes_the_rules_and_the_task_and_extract_follows_them(folder, capsys):
    assert run(INIT) == 0
    assert "wrote embed.toml with task Finding-Labels" in capsys.readouterr().out
    settings = tomllib.loads(Path("embed.toml").read_text())
    assert settings["task"] == "Finding-Labels"
    assert settings["options"] == {
        "label": ["Finding Labels", "reading"],
        "label_separator": ["Finding Labels=|"],
        "label_group": ["g=edema,fluid level"],
        "uncertain": "positive",
        "positive": ["reading=normal"],
        "unit": "image",
        "columns": {"path": "{file}", "patient_id": "patient"},
    }
    assert run(["extract"]) == 0
    printed = capsys.readouterr().out
    assert "per image, classes abnormal, normal, positive: normal (--positive abnormal swaps)" in printed
    assert "2 labels; taken as 1 (--uncertain positive)" in printed
    assert read_task("s", "reading").classes == ("abnormal", "normal")
    assert read_task("s", "Finding-Labels").targets == ("Mass", "Nodule/Mass")
    group = read_task("s", "g").labels.to_pydict()
    assert group["edema"] == ["1", "0", "1", None] * 2
    assert group["fluid level"] == ["0", "1"] * 4


def test_a_dry_run_and_json_say_the_same_as_the_summary(folder, capsys):
    run(INIT)
    capsys.readouterr()
    for options in (["--dry-run", "--json"], ["--json"]):
        assert run(["extract", *options]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["data_set"]["g: uncertain (-1)"] == "2 labels; taken as 1 (--uncertain positive)"
        assert [(task["name"], task["positive"]) for task in said["tasks"]] == [
            ("Finding-Labels", "1"),
            ("reading", "normal"),
            ("g", "1"),
        ]
        assert said["tasks"][0]["counts_of_target"] == {
            "Mass": {"0": 4, "1": 4},
            "Nodule/Mass": {"0": 4, "1": 4},
        }


def test_options_of_another_reader_are_left_alone(folder, capsys):
    run(INIT)
    capsys.readouterr()
    assert run(["extract", "--dataset", "mura", "--root", ".", "--store", "m"]) == 1
    assert "option" not in capsys.readouterr().err


def test_info_counts_the_labels_of_each_target(folder, capsys):
    run(INIT)
    run(["extract"])
    capsys.readouterr()
    assert run(["info"]) == 0
    assert "0 8, 1 8; 2 targets, --task Finding-Labels counts each" in capsys.readouterr().out
    assert run(["info", "--task", "g"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "task g: per image, 8 rows, classes 0, 1, positive: 1",
        "  target       0  1  no label",
        "  edema        2  4         2",
        "  fluid level  4  4         0",
    ]
    assert run(["info", "--task", "h"]) == 2
    assert "has no task 'h'; its tasks: Finding-Labels, g, reading" in capsys.readouterr().err


def test_label_reads_lists_and_uncertain_columns_with_a_row_per_unit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "s")
    Path("t.csv").write_text("study_id,x,a,b\nstudy0,A| B,1,0\nstudy1,none,-1,\nstudy2,b,0,1\n")
    label = ["label", "s", "--name", "t", "--csv", "t.csv"]
    assert run([*label, "--target", "x", "--label-separator", "|"]) == 0
    assert "classes 0, 1; positive: 1\nt: positive studies" in capsys.readouterr().out
    assert read_task("s", "t").labels.to_pydict() == {
        "unit_id": ["study0", "study1", "study2"],
        "A": ["1", "0", "0"],
        "B": ["1", "0", "1"],
    }
    assert run([*label, "--target", "a", "--target", "b", "--uncertain", "negative", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["facts"]["t: uncertain (-1)"] == "1 labels; taken as 0 (--uncertain negative)"
    assert read_task("s", "t").labels.column("a").to_pylist() == ["1", "0", "0"]
    assert run([*label, "--target", "x", "--uncertain", "negative"]) == 2
    assert (
        "--uncertain and --empty speak of columns of 0, 1 and -1; found the label" in capsys.readouterr().err
    )
    assert run([*label, "--target", "a", "--target", "b", "--label-separator", "|"]) == 2
    assert "--label-separator splits one label column; found a, b" in capsys.readouterr().err


def test_label_says_which_class_is_positive_and_how_to_swap(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "s")
    Path("t.csv").write_text("study_id,x\nstudy0,normal\nstudy1,No Finding at all\nstudy2,normal\n")
    label = ["label", "s", "--name", "t", "--csv", "t.csv"]
    assert run(label) == 1
    assert "'No Finding at all' and 'normal' both say that nothing was found" in capsys.readouterr().err
    assert run([*label, "--positive", "No Finding at all"]) == 0
    assert "positive: No Finding at all\n" in capsys.readouterr().out
    Path("t.csv").write_text("study_id,x\nstudy0,normal\nstudy1,abnormal\n")
    assert run(label) == 0
    assert "classes normal, abnormal; positive: abnormal (--positive normal swaps)" in capsys.readouterr().out


def test_a_label_added_for_a_trial_does_not_change_the_task_that_is_asked(folder, capsys):
    assert run(["extract", "--dataset", "table", "--root", "t.csv", "--store", "s", "--column", "path=file",
                "--label", "reading"]) == 0  # fmt: skip
    Path("trial.csv").write_text("image_id,x\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(8)))
    assert run(["label", "s", "--name", "a-trial", "--csv", "trial.csv", "--unit", "image"]) == 0
    assert load_view("s").task.name == "reading"


def test_readers_name_their_usual_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for reader, task in ((Mura, "abnormal"), (RsnaLumbar, "lumbar-severity"), (RsnaPneumonia, "opacity")):
        assert run(["init", "--dataset", reader.name, "--root", ".", "--force"]) == 0
        assert tomllib.loads(Path("embed.toml").read_text())["task"] == task
    assert run(["init", "--dataset", "mura", "--root", ".", "--force", "--task", "t2"]) == 0
    assert tomllib.loads(Path("embed.toml").read_text())["task"] == "t2"
