"""One table of exit codes, held by every command; with ``--json`` an error is an object on stdout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cli import exit_codes
from cli.commands import info
from cli.main import COMMANDS, run
from embedstore.errors import Reason
from embedstore.store.tasks import write_task
from embedstore.task import Task
from tests.stores import make_store

README = Path(__file__).parents[2] / "README.md"
MISSING = 1
WRONG_NAME = 2


@pytest.fixture
def folder(tmp_path):
    """A store with a task, a table of labels, a table of images and one image, in the current folder."""
    make_store(tmp_path / "s.store")
    labels = pa.table({"unit_id": ["study0", "study1"], "sharp": ["no", "yes"]})
    write_task(tmp_path / "s.store", Task("sharp", "study", ("sharp",), ("no", "yes"), labels))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "images.csv").write_text("path,patient_id\na.png,p\n")
    (tmp_path / "labels.csv").write_text("study_id,t\nstudy0,no\nstudy1,yes\n")
    return tmp_path


CASES = [
    # A store that is not there.
    (MISSING, "info gone.store"),
    (MISSING, "verify gone.store"),
    (MISSING, "verify gone.store --repair"),
    (MISSING, "verify gone.store --upgrade"),
    (MISSING, "export gone.store out.h5"),
    (MISSING, "label gone.store --name t --csv labels.csv"),
    (MISSING, "probe --store gone.store"),
    (MISSING, "search --store gone.store --id image0"),
    (MISSING, "search --store gone.store a.png"),
    # A run.
    (MISSING, "predict --probe runs/gone a.png"),
    (MISSING, "report runs/gone"),
    # A file or folder.
    (MISSING, "label s.store --name t --csv gone.csv"),
    (MISSING, "extract --dataset mura --root gone --store new.store"),
    (MISSING, "extract --dataset rsna-lumbar --root gone --store new.store"),
    (MISSING, "extract --dataset table --root gone.csv --store new.store"),
    (MISSING, "extract --dataset table --root gone.csv --store new.store --dry-run"),
    (MISSING, "extract --dataset table --root images.csv --store new.store --encoder ./gone"),
    (MISSING, "init --dataset mura --root gone"),
    (MISSING, "search --store s.store --id gone"),
    # A name that is given to an option.
    (WRONG_NAME, "probe --store s.store --task shrap"),
    (WRONG_NAME, "probe --store s.store --target shrap"),
    (WRONG_NAME, "probe --store s.store --with anatomi"),
    (WRONG_NAME, "probe --store s.store --head logstic"),
    (WRONG_NAME, "probe --store s.store --preset dinov2-logrg"),
    (WRONG_NAME, "search --store s.store --id image0 --where anatomi=x"),
    (WRONG_NAME, "extract --dataset table --root images.csv --store new.store --where anatomi=x"),
    (WRONG_NAME, "extract --dataset table --root images.csv --store new.store --encoder hgo"),
    (WRONG_NAME, "extract --dataset tabel --root images.csv --store new.store"),
    (WRONG_NAME, "extract --dataset table --root images.csv --store new.store --preprocess pda"),
    (WRONG_NAME, "extract --dataset table --root images.csv --store new.store --shard 3/2"),
    (WRONG_NAME, "init --dataset murra --root ."),
    (WRONG_NAME, "export s.store out.hf"),
    (WRONG_NAME, "predict --probe runs/gone a.png --out gone/answers.csv"),
    (WRONG_NAME, "demo --patients 1"),
    *[(WRONG_NAME, f"{name} --no-such-option") for name in COMMANDS],
    (WRONG_NAME, "infoo s.store"),
]


@pytest.mark.parametrize(("code", "line"), CASES)
def test_what_is_missing_and_what_is_misspelt_have_one_code_each(folder, capsys, code, line):
    assert run(line.split()) == code
    printed = capsys.readouterr()
    assert printed.err.count("Error: ") == 1
    assert printed.out == ""


@pytest.mark.parametrize(("code", "line"), [case for case in CASES if not case[1].startswith("predict")])
def test_with_json_the_error_is_one_object_on_stdout_too(folder, capsys, code, line):
    assert run([*line.split(), "--json"]) == code
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert list(found) == ["error", "kind", "exit_code"]
    assert found["exit_code"] == code
    assert f"Error: {found['error']}" in " ".join(printed.err.split())
    assert "Traceback" not in printed.err


def test_the_kind_is_the_name_of_the_python_exception(folder, capsys):
    for line, kind in (
        ("info gone.store", "StoreError"),
        ("probe --store s.store --task x", "UsageError"),
        ("probe --no-such-option", "UsageError"),
        ("extract --dataset table --root images.csv --store s.store", "IdentityMismatch"),
    ):
        run([*line.split(), "--json"])
        assert json.loads(capsys.readouterr().out)["kind"] == kind


def test_a_negative_answer_is_one_and_keeps_its_own_object(folder, capsys):
    chunk = next((folder / "s.store").rglob("vectors/c/0/0"))
    chunk.write_bytes(b"\0" * chunk.stat().st_size)
    assert run(["verify", "s.store", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["sound"] is False


def test_failed_images_are_three_whatever_else_went_well(folder, capsys):
    (folder / "images.csv").write_text("path,patient_id\na.png,p\nb.png,q\n")
    arguments = [
        "extract",
        "--dataset",
        "table",
        "--root",
        "images.csv",
        "--store",
        "new.store",
        "--workers",
        "1",
    ]
    assert run([*arguments, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["failed"] == {Reason.MISSING.value: 1}
    assert run([*arguments, "--max-failed", "0.5"]) == 0
    assert run([*arguments, "--strict"]) == 3


def test_stopped_by_the_user_is_130_in_json_too(folder, capsys, monkeypatch):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(info.command, "callback", stop)
    assert run(["info", "s.store", "--json"]) == 130
    assert json.loads(capsys.readouterr().out) == {
        "error": "stopped",
        "kind": "KeyboardInterrupt",
        "exit_code": 130,
    }


def test_the_table_of_the_readme_is_the_programs():
    rows = re.findall(r"^\| (\d+) \| ", README.read_text(), re.MULTILINE)
    codes = [value for name, value in vars(exit_codes).items() if name.isupper()]
    assert sorted(map(int, rows)) == sorted(codes)
