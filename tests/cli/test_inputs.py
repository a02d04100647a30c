"""Metadata, the choice of inputs and several stores, as a user of the command line meets them."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.main import run
from embedstore.phantoms.mura import write_phantom_mura
from heads.runs.confident_errors import confident_errors
from heads.runs.run_files import load_run

PROBE = ["probe", "--preset", "google-lr", "--draws", "20"]


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stores of all images, and of the patients of even and odd number; the odd ones lack a column."""
    folder = tmp_path_factory.mktemp("stores")
    write_phantom_mura(folder, patients=60, seed=0)
    root = folder / "MURA-v1.1"
    rows = []
    for path in sorted(root.glob("*/XR_*/patient*/study*/image*.png")):
        split, anatomy, patient, study = path.relative_to(root).parts[:4]
        label = "abnormal" if study.endswith("positive") else "normal"
        rows.append(
            {
                "path": path.relative_to(root).as_posix(),
                "patient_id": patient,
                "study_id": f"{split}/{anatomy}/{patient}/{study}",
                "split": split,
                "finding": label,
                "anatomy": anatomy,
                "serial": f"scan {len(rows)}",
            }
        )
    even = [row for row in rows if int(row["patient_id"][-5:]) % 2 == 0]
    odd = [{name: row[name] for name in row if name != "anatomy"} for row in rows if row not in even]
    for name, part in (("all", rows), ("even", even), ("odd", odd)):
        _write_table(root / f"{name}.csv", part)
        arguments = ["extract", "--dataset", "table", "--root", str(root / f"{name}.csv"), "--encoder", "hog"]
        assert run([*arguments, "--store", str(folder / f"{name}.store"), "--label", "finding"]) == 0
    return folder


@pytest.fixture
def in_stores(stores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(stores)
    capsys.readouterr()
    return stores


@pytest.fixture(scope="module")
def run_with_anatomy(stores: Path) -> Path:
    with contextlib.chdir(stores):
        assert run([*PROBE, "--store", "all.store", "--with", "anatomy", "--out", "with"]) == 0
    return Path("with")


@pytest.fixture
def with_anatomy(run_with_anatomy: Path, in_stores: Path) -> Path:
    """The run of a head that was told the anatomy, in the folder of the stores."""
    return run_with_anatomy


def _evaluated(folder: Path) -> dict[str, float]:
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    return {row["unit_id"]: row["prob_abnormal"] for row in rows if row["role"] == "evaluation"}


def test_predicting_the_store_brings_its_metadata_and_reproduces_the_run_bit_for_bit(
    with_anatomy: Path,
) -> None:
    assert run(["predict", "--probe", "with", "all.store", "--out", "all.parquet"]) == 0
    found = {row["unit_id"]: row["prob_abnormal"] for row in pq.read_table("all.parquet").to_pylist()}
    evaluated = _evaluated(with_anatomy)
    assert evaluated
    assert {unit_id: found[unit_id] for unit_id in evaluated} == evaluated


def test_a_folder_gets_its_metadata_by_name_and_then_the_stores_answer(
    with_anatomy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit_id, expected = next(iter(_evaluated(with_anatomy).items()))
    command = ["predict", "--probe", "with", f"MURA-v1.1/{unit_id}", "--with"]
    assert run([*command, f"anatomy={unit_id.split('/')[1]}"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["targets"]["finding"]["probabilities"]["abnormal"] == expected
    assert "metadata_unseen" not in json.loads(printed.out)
    assert re.fullmatch(r"\d images? in \d+\.\d s, \d+\.\d images/s\n", printed.err)
    assert run([*command, "anatomy=XR_SKULL"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["targets"]["finding"]["probabilities"]["abnormal"] != expected
    assert json.loads(printed.out)["metadata_unseen"] == {"anatomy": ["XR_SKULL"]}
    assert "anatomy: 'XR_SKULL' not among the images that the head was fitted on" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["MURA-v1.1"],
            "--with anatomy=VALUE is needed: the head of run with was fitted with anatomy, and these files",
        ),
        (["MURA-v1.1"], "known values: XR_ELBOW, XR_FINGER, XR_FOREARM, XR_HAND"),
        (["odd.store"], "store odd.store has no such column"),
        (["all.store", "--with", "anatomy=XR_HAND"], "store all.store has the column anatomy itself"),
        (["MURA-v1.1", "--with", "view=1"], "--with view=1: the head of run with gets anatomy"),
        (["MURA-v1.1", "--with", "anatomy"], "--with takes COLUMN=VALUE; found 'anatomy'"),
        (["MURA-v1.1", "--with", "anatomy=a", "--with", "anatomy=b"], "--with anatomy is given twice"),
    ],
)
def test_a_prediction_without_the_right_metadata_is_refused(
    with_anatomy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["predict", "--probe", str(with_anatomy), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_run_of_vectors_alone_takes_no_metadata(
    in_stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*PROBE, "--store", "all.store", "--out", "alone"]) == 0
    assert "beside the vectors" not in capsys.readouterr().out
    assert run(["predict", "--probe", "alone", "all.store", "--with", "anatomy=XR_HAND"]) == 2
    assert "the head of run alone gets no metadata" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--with", "view"], 2, "has no column 'view'; its columns: image_id, path,"),
        (["--with", "patient_id"], 2, "--with patient_id: patient_id says which image this is"),
        (["--with", "finding"], 2, "has no column 'finding'"),
        (
            ["--with", "serial"],
            2,
            "--with serial: 129 different values in 129 images ('scan 0', 'scan 1', ...), 64 at most",
        ),
        (["--with", "anatomy", "--with", "anatomy"], 2, "--with anatomy is given twice"),
        (["--select-inputs", "--pooling", "max-vector"], 2, "leave --pooling max-vector out"),
        (["--store", "all.store"], 1, "images are in store all.store and in store all.store: 'train/"),
        (["--store", "even.store"], 1, "images are in store all.store and in store even.store: 'train/"),
    ],
)
def test_inputs_that_cannot_be_used_give_one_line(
    in_stores: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run([*PROBE, "--store", "all.store", *arguments]) == code
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]


def test_the_choice_of_inputs_is_printed_kept_and_reported(
    in_stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*PROBE, "--store", "all.store", "--with", "anatomy", "--select-inputs", "--out", "chosen"]
    assert run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(row for row, line in enumerate(lines) if line.startswith("inputs tried"))
    document = json.loads(Path("chosen/run.json").read_text())
    tried = document["inputs"]["tried"]
    assert len(tried) == 6
    for line, way in zip(lines[start + 1 : start + 7], tried, strict=True):
        assert line.startswith(way["pooling"])
        assert (" with anatomy " in line) == (way["metadata"] == ["anatomy"])
        assert f"{way['log_loss']:.4f}" in line
    chosen = min(tried, key=lambda way: way["log_loss"])
    assert [line for line in lines[start + 1 : start + 7] if line.endswith("  chosen")] == [
        lines[start + 1 + tried.index(chosen)]
    ]
    assert {name: chosen[name] for name in ("pooling", "metadata")} == document["inputs"]["chosen"]
    page = Path("chosen/report.html").read_text()
    assert "inputs tried" in page
    assert f"{chosen['log_loss']:.4f} (chosen)" in page


def test_heads_side_by_side_each_name_the_inputs_they_chose(
    in_stores: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.jobs.probe_all.head_names", lambda: ["knn", "logistic"])
    arguments = ["--select-inputs", "--draws", "20", "--out", "heads"]
    assert run(["probe", "--store", "all.store", "--head", "all", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("inputs chosen by out-of-fold log loss")
    for line in lines[start + 1 : start + 3]:
        name, pooling = line.split()
        document = json.loads((Path("heads") / name / "run.json").read_text())
        assert document["settings"]["pooling"] == pooling


def test_where_there_is_one_way_only_nothing_is_tried(
    in_stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("MURA-v1.1/even.csv").open(newline="") as file:
        rows = [
            {name: row[name] for name in ("path", "patient_id", "finding")} for row in csv.DictReader(file)
        ]
    _write_table(Path("MURA-v1.1/images.csv"), rows)
    extract = ["extract", "--dataset", "table", "--root", "MURA-v1.1/images.csv", "--encoder", "hog"]
    assert run([*extract, "--store", "images.store", "--label", "finding"]) == 0
    capsys.readouterr()
    assert run([*PROBE, "--store", "images.store", "--select-inputs", "--out", "images"]) == 0
    printed = capsys.readouterr()
    assert "nothing to choose from" in printed.err
    assert "inputs tried" not in printed.out
    assert json.loads(Path("images/run.json").read_text())["inputs"]["tried"] == []


def test_two_stores_are_probed_as_one_with_pictures_of_both(
    in_stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--store", "even.store", "--store", "odd.store"]
    assert run([*PROBE, *both, "--with", "anatomy", "--thumbnails", "--out", "both"]) == 0
    counts = json.loads(Path("both/run.json").read_text())["counts"]
    of_all = pq.read_table("all.store/tasks/finding/labels.parquet").num_rows
    assert counts["units_fitted"] + counts["units_evaluated"] == of_all
    wrong = confident_errors(load_run(Path("both")))
    assert {int(error.unit_id.split("/")[2][-5:]) % 2 for error in wrong} == {0, 1}
    assert Path("both/report.html").read_text().count("data:image/jpeg;base64,") == len(wrong)
    evaluated = _evaluated(Path("both"))
    for store, more in (("even", []), ("odd", ["--with", "anatomy="])):
        assert run(["predict", "--probe", "both", f"{store}.store", *more, "--out", f"{store}.parquet"]) == 0
        for row in pq.read_table(f"{store}.parquet").to_pylist():
            assert evaluated.pop(row["unit_id"], row["prob_abnormal"]) == row["prob_abnormal"]
    assert evaluated == {}


def test_the_store_of_embed_toml_is_the_one_that_is_probed(
    in_stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("embed.toml").write_text('store = "even.store"\n')
    try:
        assert run([*PROBE, "--json", "--out", "default"]) == 0
    finally:
        Path("embed.toml").unlink()
    counts = json.loads(capsys.readouterr().out)["counts"]
    labelled = pq.read_table("even.store/tasks/finding/labels.parquet").num_rows
    assert counts["units_fitted"] + counts["units_evaluated"] == labelled


def test_a_run_without_out_is_named_after_its_options_and_a_replaced_one_is_said(
    in_stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*PROBE, "--store", "all.store"]
    for options in ([], ["--with", "anatomy"]):
        assert run([*command, *options]) == 0
        assert capsys.readouterr().err == ""
    assert run([*command, "--with", "anatomy"]) == 0
    found = load_run(Path("runs/finding-google-lr-with-anatomy"))
    said = capsys.readouterr().err
    assert said.startswith(
        f"equal inputs, equal result: {found.run_id} is the same as the run of {found.timing['created'][:4]}"
    )
    assert said.count("\n") == 1
    assert said.endswith("UTC in runs/finding-google-lr-with-anatomy\n")
    assert load_run(Path("runs/finding-google-lr")).document["settings"]["metadata"] == []


@pytest.mark.parametrize("head", [["--preset", "google-lr"], ["--head", "all"]])
def test_a_place_for_the_run_that_is_a_file_is_refused_before_anything_is_fitted(
    in_stores: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, head: list[str]
) -> None:
    monkeypatch.setattr("cli.jobs.probe_store.probe", lambda *_, **__: pytest.fail("fits"))
    Path("taken").touch()
    assert run(["probe", "--store", "all.store", *head, "--out", "taken"]) == 2
    assert "must be a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (["--head", "xgbost"], "xgboost"),
        (["--head", "Logistic"], "logistic"),
        (["--preset", "mura"], "mura-mlp"),
        (["--task", "findng"], "finding"),
        (["--target", "findng"], "finding"),
        (["--with", "anatomie"], "anatomy"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    in_stores: Path, capsys: pytest.CaptureFixture[str], options: list[str], meant: str
) -> None:
    assert run(["probe", "--store", "all.store", *options]) == 2
    assert f"Did you mean {meant!r}?" in capsys.readouterr().err


def test_a_store_with_pending_images_says_how_many_studies_get_no_answer(
    in_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*PROBE, "--store", "all.store", "--out", "runs/whole"]) == 0
    shutil.copytree("all.store", tmp_path / "half.store")
    (tmp_path / "half.store" / "parts" / "0000" / "receipts" / "000000.json").unlink()
    capsys.readouterr()
    assert run(["predict", "--probe", "runs/whole", str(tmp_path / "half.store")]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    manifest = pq.read_table("all.store/parts/0000/manifest.parquet")
    studies = len(set(manifest["study_id"].to_pylist()))
    lacking = f"{manifest.num_rows} images pending: {studies} studies without an answer; run `embed extract`"
    assert lacking in printed.err


def test_an_encoder_that_embed_toml_names_for_its_store_is_not_that_of_every_run(
    in_stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*PROBE, "--store", "all.store", "--out", "runs/whole"]) == 0
    image = next(in_stores.rglob("image1.png"))
    (tmp_path / "embed.toml").write_text('encoder = "medsiglip-448"\n')
    monkeypatch.chdir(tmp_path)
    assert run(["predict", "--probe", str(in_stores / "runs/whole"), str(image)]) == 0
    capsys.readouterr()
    named = ["--encoder", "medsiglip-448"]
    assert run(["predict", "--probe", str(in_stores / "runs/whole"), *named, str(image)]) != 0


def test_a_split_can_be_left_out_of_account(in_stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PROBE, "--store", "all.store", "--cross-validate", "--out", "runs/cv"]) == 0
    out = capsys.readouterr().out
    assert "(5-fold cross-validation" in out or "cross-validation)" in out
    document = load_run(Path("runs/cv")).document
    assert document["counts"]["units_evaluated"] == document["counts"]["units_fitted"]


def test_a_prediction_says_whether_the_run_learned_from_the_unit(
    in_stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*PROBE, "--store", "all.store", "--out", "runs/plain"]) == 0
    capsys.readouterr()
    assert run(["predict", "--probe", "runs/plain", "all.store"]) == 0
    told = {}
    for line in capsys.readouterr().out.splitlines():
        entry = json.loads(line)
        told[entry["unit_id"].partition("/")[0]] = entry["learned_from"]
    assert told == {"train": True, "valid": False}


def test_a_target_that_the_task_lacks_is_named(in_stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*PROBE, "--store", "all.store", "--target", "colour"]) == 2
    assert "has no target 'colour'; it has finding" in capsys.readouterr().err


def test_the_encoders_device_in_embed_toml_does_not_concern_a_head(in_stores: Path) -> None:
    Path("embed.toml").write_text('store = "all.store"\ndevice = "cuda:1"\n')
    try:
        assert run([*PROBE, "--out", "runs/device"]) == 0
    finally:
        Path("embed.toml").unlink()
