"""The commands as a user meets them: defaults, exit codes, and one clear line for each mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import COMMANDS, cli, run
from embedstore.phantoms.mura import write_phantom_mura
from embedstore.store.reader import open_store

EMBED = [sys.executable, "-m", "cli.main"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's folder, as `embed demo` leaves it, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*EMBED, "demo", "--out", "demo", "--patients", "60", "--lumbar-studies", "6"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "demo", done.stdout


@pytest.fixture
def in_demo(demo, monkeypatch):
    monkeypatch.chdir(demo[0])
    return demo[0]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A phantom MURA tree of a few patients."""
    folder = tmp_path_factory.mktemp("tree")
    write_phantom_mura(folder, patients=20, seed=3)
    return folder / "MURA-v1.1"


def images_of(folder):
    return sorted(path for path in folder.rglob("image*.png"))


def test_the_demo_ends_with_what_it_made_numbers_with_intervals_and_commands_to_try(demo):
    folder, printed = demo
    assert (folder / "runs" / "abnormal-logistic" / "report.html").stat().st_size > 10_000
    assert "95 % interval" in printed
    assert "phantom" in printed
    # A demo's folder may hold tasks of its user.
    assert "$ embed probe --task abnormal --head logistic" in printed
    closing = printed.partition("these need no options:")[2]
    *commands, of_the_tower = [line.strip() for line in closing.splitlines() if line.startswith("  embed ")]
    assert len(commands) == 3
    assert of_the_tower.startswith(
        "embed finetune --encoder siglip-random"
    )  # the command is tested in tests/cli/finetuning
    for line in commands:
        done = subprocess.run(
            [*EMBED, *line.split()[1:]], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stderr)


def test_after_the_demo_the_plain_words_work_without_options(in_demo, capsys):
    assert run(["extract"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run(["probe", "--head", "logistic"]) == 0
    assert "auroc" in capsys.readouterr().out
    assert run(["search", str(images_of(in_demo)[0]), "--same-patient", "--all-images"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1.0000")
    assert run(["info"]) == 0
    assert run(["verify"]) == 0
    assert "sound" in capsys.readouterr().out


def test_plain_words_work_from_a_folder_below(in_demo, monkeypatch, capsys):
    monkeypatch.chdir(in_demo / "MURA-v1.1" / "train")
    assert run(["info"]) == 0
    assert "abnormal" in capsys.readouterr().out


def test_a_file_that_predictions_replace_is_said(in_demo, capsys):
    arguments = ["predict", "--probe", "runs/abnormal-logistic", "mura.store", "--out", "twice.jsonl"]
    assert run(arguments) == 0
    assert "replaces" not in capsys.readouterr().err
    assert run(arguments) == 0
    assert "replaces twice.jsonl" in capsys.readouterr().err


def test_predicting_the_store_reproduces_the_run_bit_for_bit(in_demo):
    import pyarrow.parquet as pq

    assert run(["predict", "--probe", "runs/abnormal-logistic", "mura.store", "--out", "all.parquet"]) == 0
    predicted = {row["unit_id"]: row["prob_abnormal"] for row in pq.read_table("all.parquet").to_pylist()}
    kept = pq.read_table("runs/abnormal-logistic/predictions.parquet").to_pylist()
    evaluated = [row for row in kept if row["role"] == "evaluation"]
    assert evaluated
    assert all(predicted[row["unit_id"]] == row["prob_abnormal"] for row in evaluated)


def test_predictions_name_labelled_cases_of_other_patients(in_demo, capsys):
    study = images_of(in_demo)[-1].parent.relative_to(in_demo)
    own = study.relative_to("MURA-v1.1").parent
    assert run(["predict", "--probe", "runs/abnormal-logistic", "--neighbors", "2", str(study)]) == 0
    cases = json.loads(capsys.readouterr().out)["neighbors"]
    assert len(cases) == 2
    assert cases[0]["cosine"] >= cases[1]["cosine"]
    assert not any(case["unit_id"].startswith(str(own)) for case in cases)
    assert {case["labels"]["abnormal"] for case in cases} <= {"normal", "abnormal"}
    assert run(["predict", "--probe", "runs/abnormal-logistic", "--neighbors", "0", str(study)]) == 0
    assert "neighbors" not in json.loads(capsys.readouterr().out)


def test_a_prevalence_is_stated_in_every_prediction(in_demo, capsys):
    command = ["predict", "--probe", "runs/abnormal-logistic", "mura.store", "--prevalence"]
    assert run([*command, "0.1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["targets"]["abnormal"]["prevalence"]["assumed"]["abnormal"] for line in lines} == {0.1}
    assert run([*command, "2"]) == 2
    assert "--prevalence must be a number" in capsys.readouterr().err


def test_all_heads_make_one_table_and_one_that_cannot_run_is_named(in_demo, capsys, monkeypatch):
    monkeypatch.setattr("cli.jobs.probe_all.head_names", lambda: ["logistic", "nothing"])
    assert run(["probe", "--head", "all", "--draws", "50", "--out", "heads"]) == 0
    printed = capsys.readouterr().out
    assert "skipped: --head: no head named 'nothing'" in printed
    assert "best" in printed
    assert (in_demo / "heads" / "logistic" / "run.json").is_file()
    assert (in_demo / "heads" / "comparison.html").is_file()


def test_a_preset_is_a_run_of_its_own_name_with_a_learning_curve_and_thumbnails(in_demo, capsys):
    arguments = [
        "probe",
        "--preset",
        "google-lr",
        "--draws",
        "50",
        "--learning-curve",
        "--thumbnails",
        "--json",
    ]
    assert run(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"].endswith("abnormal-google-lr-curve")
    assert document["settings"]["preset"] == "google-lr"
    assert document["learning_curve"]["points"] or document["learning_curve"]["skipped"]
    page = (in_demo / "runs" / "abnormal-google-lr-curve" / "report.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert run(["probe", "--preset", "google-lr", "--head", "knn"]) == 2
    assert "brings its own head" in capsys.readouterr().err


def test_predicting_from_the_files_gives_what_the_store_gives(in_demo, capsys):
    study = images_of(in_demo)[-1].parent.relative_to(in_demo)
    assert run(["predict", "--probe", "runs/abnormal-logistic", str(study)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert run(["predict", "--probe", "runs/abnormal-logistic", "mura.store"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stored = next(line for line in lines if line["unit_id"] == answer["unit_id"])
    assert answer["targets"] == stored["targets"]
    assert answer["notice"] == "Research software, not a medical device."
    assert sum(answer["targets"]["abnormal"]["probabilities"].values()) == pytest.approx(1)


def test_json_output_is_one_object(in_demo, capsys):
    for command in (["extract"], ["info"], ["verify"], ["search", "--id", "train/none"][:1]):
        if command == ["search"]:
            continue
        run([*command, "--json"])
        assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_searching_by_id_leaves_the_patient_out_unless_asked(in_demo, capsys):
    store = open_store("mura.store")
    patients = store.table.column("patient_id").to_pylist()
    row = next(row for row, patient in enumerate(patients) if patients.count(patient) > 1)
    image_id, patient = store.image_ids[row], patients[row]
    run(["search", "--id", image_id, "--json", "--all-images", "-k", str(len(patients))])
    found = json.loads(capsys.readouterr().out)["hits"]
    assert len(found) == len(patients) - patients.count(patient)
    run(["search", "--id", image_id, "--json", "--all-images", "-k", str(len(patients)), "--same-patient"])
    found = json.loads(capsys.readouterr().out)["hits"]
    assert len(found) == len(patients) - 1
    assert image_id not in {entry["image_id"] for entry in found}


def test_help_imports_nothing_heavy_and_every_command_has_an_example():
    script = (
        "import sys; from cli.main import run; run(['--help']); print(sorted(m for m in sys.modules if m in "
    )
    script += "('torch','numpy','pyarrow','zarr','sklearn','transformers','PIL')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        command = cli.get_command(None, name)
        assert command.name == name
        assert "Example:" in (command.help or ""), name
        assert f"embed {name}" in command.help


def test_every_listed_command_is_the_groups(tmp_path):
    assert cli.list_commands(None) == list(COMMANDS)
    assert cli.get_command(None, "nonsense") is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (
            ["extract"],
            2,
            "--store is needed: give it, or run `embed init` once so that embed.toml holds 'store'",
        ),
        (["extract", "--store", "s"], 2, "--dataset is needed"),
        (["extract", "--store", "s", "--dataset", "murra", "--root", "."], 2, "dataset must be one of"),
        (["extract", "--store", "s", "--dataset", "mura", "--root", "gone"], 1, "gone"),
        (["extract", "--store", "s", "--dataset", "mura", "--root", "empty"], 1, "empty"),
        (
            ["extract", "--store", "s", "--dataset", "table", "--root", "t.csv", "--column", "x"],
            2,
            "--column takes NAME=COLUMN",
        ),
        (["extract", "--limit", "0"], 2, "--limit"),
        (["init", "--dataset", "mura", "--root", "gone"], 1, "--root: gone does not exist"),
        (["info", "empty"], 1, "empty is not a store"),
        (["info", "gone"], 1, "gone does not exist"),
        (["verify", "empty"], 1, "empty is not a store"),
        (["verify", "empty", "--repair"], 1, "empty is not a store"),
        (["export", "empty", "out.h5"], 1, "empty is not a store"),
        (["search", "--store", "s"], 2, "give one of: image files, --id"),
        (["predict", "--probe", "empty", "x.png"], 1, "empty is not a run"),
        (["report", "empty"], 1, "empty is not a run"),
        (["probe", "--store", "empty"], 1, "empty is not a store"),
    ],
)
def test_a_mistake_gives_one_line_and_its_exit_code(tmp_path, capsys, arguments, code, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text("path\na.png\n")
    assert run(arguments) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert message in errors[0]


def test_a_wrong_key_in_embed_toml_is_named_with_the_nearest_valid_one(tmp_path, capsys):
    Path("embed.toml").write_text('hede = "logistic"\n')
    assert run(["info"]) == 2
    assert "embed.toml: unknown key 'hede'; the nearest valid one is 'head'" in capsys.readouterr().err
    Path("embed.toml").write_text("batch_size = true\n")
    assert run(["extract"]) == 2
    assert "batch_size must be a whole number; found True" in capsys.readouterr().err
    Path("embed.toml").write_text("store = [\n")
    assert run(["info"]) == 2
    assert "is not TOML" in capsys.readouterr().err
    assert run(["info", "--help"]) == 0


def test_a_wrong_value_of_embed_toml_is_not_blamed_on_an_option(tree, capsys):
    Path("embed.toml").write_text(f'dataset = "mura"\nroot = "{tree}"\nstore = "s"\nencoder = "hogg"\n')
    assert run(["extract"]) == 2
    said = capsys.readouterr().err
    assert "--encoder must be one of" in said
    assert said.endswith("encoder = 'hogg' stands in embed.toml\n")
    assert run(["extract", "--encoder", "hogg"]) == 2
    assert "embed.toml" not in capsys.readouterr().err


def test_init_refuses_to_replace_settings_unless_forced(tree, tmp_path, capsys):
    arguments = ["init", "--dataset", "mura", "--root", str(tree)]
    assert run(arguments) == 0
    assert run(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*arguments, "--force"]) == 0


def extract_arguments(tree, *more):
    return ["extract", "--dataset", "mura", "--root", str(tree), "--store", "s.store", *more]


def test_failed_images_are_named_and_visible_in_the_exit_code(tree, tmp_path, capsys):
    import shutil

    copy = tmp_path / "MURA-v1.1"
    shutil.copytree(tree, copy)
    images = images_of(tmp_path)
    images[0].write_bytes(b"")
    images[1].unlink()
    assert run(extract_arguments(copy, "--max-failed", "0.5")) == 0
    assert run(extract_arguments(copy, "--strict")) == 3
    assert "2 images failed" in capsys.readouterr().err
    assert run(["info", "s.store"]) == 0
    printed = capsys.readouterr().out
    assert images[0].relative_to(copy).as_posix() in printed
    assert "missing" in printed
    images[0].write_bytes((tree / images[0].relative_to(copy)).read_bytes())
    shutil.copy(tree / images[1].relative_to(copy), images[1])
    assert run(extract_arguments(copy, "--strict", "--retry-failed")) == 0


def test_another_preprocess_on_the_store_is_refused_by_field(tree, tmp_path, capsys):
    assert run(extract_arguments(tree, "--limit", "3")) == 0
    assert run(extract_arguments(tree, "--preprocess", "hf")) == 1
    error = capsys.readouterr().err
    assert "preprocess.preset: 'pad' there, 'hf' asked" in error
    assert len([line for line in error.splitlines() if line.startswith("Error")]) == 1


def test_a_full_disk_is_one_line_and_the_run_resumes(tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EMBEDSTORE_FAILPOINT", "receipt.written:2=ENOSPC")
    assert run(extract_arguments(tree, "--chunk-rows", "8")) == 1
    assert "Error: No space left on device" in capsys.readouterr().err
    monkeypatch.delenv("EMBEDSTORE_FAILPOINT")
    assert run(extract_arguments(tree)) == 0
    assert run(["verify", "s.store"]) == 0


def test_repair_and_extract_lead_back_to_a_sound_store(tree, tmp_path, capsys):
    assert run(extract_arguments(tree, "--chunk-rows", "8")) == 0
    before = open_store("s.store").embeddings().vectors
    chunk = tmp_path / "s.store" / "parts" / "0000" / "vectors" / "c" / "1" / "0"
    payload = bytearray(chunk.read_bytes())
    payload[100] ^= 16
    chunk.write_bytes(payload)
    assert run(["verify", "s.store"]) == 1
    assert "chunk 1, rows 8 to 15" in capsys.readouterr().out
    assert run(["probe", "--store", "s.store"]) == 1
    assert run(["verify", "s.store", "--repair"]) == 0
    assert run(extract_arguments(tree)) == 0
    assert run(["verify", "s.store"]) == 0
    np.testing.assert_array_equal(open_store("s.store").embeddings().vectors, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_same_command_continues(tree, tmp_path, number):
    arguments = [*EMBED, *extract_arguments(tree, "--chunk-rows", "4", "--batch-size", "1")]
    process = subprocess.Popen(
        arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    receipts = tmp_path / "s.store" / "parts" / "0000" / "receipts"
    while not (receipts.is_dir() and list(receipts.glob("*.json"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    store = open_store(tmp_path / "s.store")
    if process.returncode == 130:
        assert "the current chunk is abandoned, finished ones stay" in errors
        assert "run the same command to continue" in printed
        assert store.parts[0].pending
    else:
        # The signal came after the last chunk; nothing was left to abandon.
        assert process.returncode == 0
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert not open_store(tmp_path / "s.store").parts[0].pending


def test_two_extractions_at_once_are_told_apart(tree, tmp_path, capsys):
    from embedstore.encoders.hog import HogEncoder
    from embedstore.store.writer import open_writer

    with open_writer(tmp_path / "s.store", HogEncoder().identity, say=print):
        assert run(extract_arguments(tree)) == 1
    assert f"pid {os.getpid()}" in capsys.readouterr().err


def test_any_table_of_images_becomes_a_store_with_its_label_as_task(tmp_path, capsys):
    generator = np.random.default_rng(0)
    lines = ["path,patient_id,sharp"]
    for number in range(40):
        pixels = generator.integers(0, 256, (32, 32), dtype=np.uint8)
        if number % 2:
            pixels = np.repeat(np.repeat(pixels[::8, ::8], 8, axis=0), 8, axis=1)
        Image.fromarray(pixels).save(f"{number}.png")
        lines.append(f"{number}.png,p{number},{'no' if number % 2 else 'yes'}")
    Path("table.csv").write_text("\n".join(lines) + "\n")
    arguments = [
        "extract",
        "--dataset",
        "table",
        "--root",
        "table.csv",
        "--store",
        "t.store",
        "--label",
        "sharp",
    ]
    assert run(arguments) == 0
    assert run(["probe", "--store", "t.store", "--draws", "50"]) == 0
    document = json.loads(Path("runs/sharp-logistic/run.json").read_text())
    assert document["metrics"]["auroc"]["value"] > 0.9


def test_a_dry_run_counts_refuses_estimates_and_writes_nothing(tree, tmp_path, capsys):
    import shutil

    copy = tmp_path / "MURA-v1.1"
    shutil.copytree(tree, copy)
    images = images_of(copy)
    images[0].write_bytes(b"")
    images[1].unlink()
    images[2].write_text("no picture")
    before = sorted(tmp_path.rglob("*"))
    assert run([*extract_arguments(copy), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == len(images)
    assert sum(group["images"] for group in found["groups"]) == len(images)
    assert {group["split"] for group in found["groups"]} == {"train", "valid"}
    assert found["absent"] == {
        "no-pixels": [images[0].relative_to(copy).as_posix()],
        "missing": [images[1].relative_to(copy).as_posix()],
    }
    if found["sampled"] == len(images) - 2:
        assert list(found["refused"]) == [images[2].relative_to(copy).as_posix()]
    # 1,152 float16 numbers and a 32-byte digest per image, and the manifest.
    assert found["disk_bytes"] > len(images) * (1152 * 2 + 32)
    assert found["seconds"] > 0
    assert sorted(tmp_path.rglob("*")) == before
    assert run([*extract_arguments(copy), "--dry-run"]) == 0
    refused = 2 + len(found["refused"])
    assert f"{len(images) - refused} of {len(images)} images; 0 are in" in capsys.readouterr().out
