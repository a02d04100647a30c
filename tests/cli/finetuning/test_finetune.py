"""From a store to an encoder to a store again, by the commands as they are printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run
from tests.finetune.lessons import TASK, write_lesson

SMALL = [
    *("--store", "pictures.store", "--encoder", "base", "--yes", "--workers", "0", "--dtype", "float32"),
    *("--epochs", "1", "--batch", "16", "--head-shape", "8", "--lr", "1e-3"),
]


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    write_lesson(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("lesson")
def test_a_table_of_several_numbers_of_blocks_and_what_to_type_next(capsys):
    assert run(["finetune", *SMALL, "--blocks", "1,2"]) == 0
    printed, said = capsys.readouterr()
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["1", "2"]
    assert "encoders/task-unfreeze-1-k1" in printed or "encoders/task-unfreeze-1-k2" in printed
    assert "not yet evidence: these patients chose the epoch" in printed
    assert "Next: the same command with --resume --then-probe" in printed
    assert "epoch 1: validation loss" in said
    assert run(["finetune", *SMALL, "--out", "one", "--method", "lora", "--lora-r", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recipe"]["lora"]["r"] == 2
    assert document["history"][-1]["epoch"] == 1
    assert run(["finetune", *SMALL, "--out", "one"]) == 2
    assert "--out must be a new folder; one is a finished encoder" in capsys.readouterr().err


def extracted_by_the_base():
    """Extract the lesson's pictures by the base that is to be trained, and return the store."""
    rows = [f"image{row}.png,patient{row // 2},study{row // 2}" for row in range(48)]
    Path("images/t.csv").write_text("\n".join(["path,patient_id,study_id", *rows]) + "\n")
    labels = [f"study{study},{'yes' if study % 2 else 'no'}" for study in range(24)]
    Path("labels.csv").write_text("\n".join(["study_id,sign", *labels]) + "\n")
    table = ["--dataset", "table", "--root", "images/t.csv", "--encoder", "base", "--store", "base.store"]
    assert run(["extract", *table, "--dtype", "float32", "--device", "cpu"]) == 0
    assert run(["label", "base.store", "--name", TASK, "--csv", "labels.csv"]) == 0
    return "base.store"


@pytest.mark.usefixtures("lesson")
def test_stores_of_another_encoder_are_no_before_of_what_was_trained(capsys):
    arguments = [*SMALL, "--out", "tuned", "--head", "knn", "--then-probe", "--hold-out", "0.4"]
    assert run(["finetune", *arguments, "--validation-share", "0.25", "--json"]) == 0
    printed, said = capsys.readouterr()
    assert json.loads(printed)["judged"]["predicted"] is None
    assert "the comparison is of two encoders, not of one before and after" in said


@pytest.mark.usefixtures("lesson")
def test_a_folder_that_holds_something_and_more_blocks_than_there_are_are_refused_at_once(capsys):
    Path("runs").mkdir()
    Path("runs/notes.txt").write_text("mine")
    for out in ("runs", "base", "pictures.store"):
        for further in ([], ["--resume"], ["--folds", "2"], ["--folds", "2", "--resume"]):
            assert run(["finetune", *SMALL, "--out", out, *further]) == 2
            assert "--out must be a new or an empty folder" in capsys.readouterr().err
    assert run(["finetune", *SMALL, "--blocks", "1,9", "--out", "many"]) == 2
    assert "--blocks must be at most the 3 of the encoder" in capsys.readouterr().err
    assert not Path("many-k1").exists()
    assert run(["finetune", *SMALL, "--out", "gpu", "--device", "gpu"]) == 2
    assert "device must be" in capsys.readouterr().err


@pytest.mark.usefixtures("lesson")
def test_a_head_that_has_seen_everybody_holds_nobody_out(capsys):
    store = extracted_by_the_base()
    small = [
        store if word == "pictures.store" else word for word in SMALL if word not in ("--head-shape", "8")
    ]
    assert run(["probe", "--store", store, "--task", TASK, "--head", "logistic", "--out", "runs/head"]) == 0
    capsys.readouterr()
    assert run(["finetune", *small, "--from-run", "runs/head", "--out", "warm"]) == 2
    assert "patients who are held out, and would bring them into the encoder" in capsys.readouterr().err
    assert run(["finetune", *small, "--from-run", "runs/head", "--folds", "2", "--out", "crossed"]) == 2
    assert "the head of --from-run has seen it" in capsys.readouterr().err
    assert run(["finetune", *small, "--from-run", "runs/head", "--hold-out", "0", "--out", "warm"]) == 0
    assert "patients who judge: losses look better than they are" in capsys.readouterr().err


@pytest.mark.usefixtures("lesson")
def test_the_encoder_is_judged_by_patients_whom_it_never_saw(capsys):
    store = extracted_by_the_base()
    small = [store if word == "pictures.store" else word for word in SMALL]
    arguments = [*small, "--out", "tuned", "--head", "knn", "--then-probe", "--hold-out", "0.4"]
    arguments += ["--validation-share", "0.25"]
    assert run(["finetune", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "tuned.store: its own store; judged on patients whom it has never seen" in printed
    assert "finding: 12 studies of 12 patients, evaluated in every run" in printed
    assert "embed escalate was not asked about these vectors" in printed
    # Finished, it is judged again without another training, and held against what was predicted of the same vectors.
    assert run(["probe", "--store", store, "--task", TASK, "--head", "knn", "--out", "runs/asked"]) == 0
    assert run(["escalate", "--probe", "runs/asked", "--goal", "auroc>=0.999"]) >= 10
    capsys.readouterr()
    assert run(["finetune", *arguments, "--resume", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["judged"]["comparison"]["units"] == 12
    predicted = document["judged"]["predicted"]
    asked = json.loads(Path("runs/asked/escalation.json").read_text())
    assert predicted["goal"] == "auroc>=0.999"
    assert predicted["decision"] == asked["decision"]
    before, after = document["judged"]["comparison"]["runs"]
    assert predicted["obtained_gain"][0] == pytest.approx(
        after["metrics"]["auroc"]["value"] - before["metrics"]["auroc"]["value"]
    )
    assert run(["finetune", *arguments, "--resume"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("predicted for auroc>=0.999 (runs/asked): ") for line in lines)
    assert any(line.startswith("obtained: auroc ") for line in lines)
    assert run(["info", "tuned.store"]) == 0
    assert "fine-tuned  unfreeze of base" in capsys.readouterr().out
    assert run(["verify", "tuned.store"]) == 0
    assert run(["probe", "--store", "tuned.store", "--task", TASK, "--head", "knn"]) == 1
    assert "--trained-patients leave-out leaves them out" in capsys.readouterr().err


@pytest.mark.usefixtures("lesson")
def test_every_study_is_answered_by_an_encoder_that_never_saw_its_patient(capsys):
    assert run(["finetune", *SMALL, "--out", "crossed", "--folds", "2", "--validation-share", "0.25"]) == 0
    printed, said = capsys.readouterr()
    assert "crossed/out_of_fold.parquet: 24 units out of fold" in printed
    assert "sign: auroc" in printed
    assert "fold 2 of 2" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--blocks", "2,two"],
            "--blocks must be a number, several with commas between, or all; found '2,two'",
        ),
        (["--head-shape", "512;128"], "--head-shape must be widths with commas between, or linear"),
        (
            ["--method", "lora", "--lora-targets", "q,w"],
            "--lora-targets must be some of q, k, v, out, fc1, fc2",
        ),
        (["--rotate", "45"], "--rotate must be from 0 to 30"),
        (["--adapter", "peft"], "--store says how to train, and --adapter trains nothing; leave it out"),
        (["--dora"], "--dora needs --method lora"),
        (["--head", "knn"], "--head needs --then-probe"),
        (
            ["--from-run", "r", "--head-shape", "8"],
            "--head-shape needs no --from-run, whose head has its own",
        ),
        (["--base-bits", "4"], "--base-bits 4 needs --method lora; found --method unfreeze"),
        (
            ["--method", "lora", "--base-bits", "4", "--lora-init", "olora"],
            "--lora-init must be default, gaussian or orthogonal with --base-bits 4, because",
        ),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(capsys, arguments, message):
    assert run(["finetune", "--store", "gone", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("lesson")
def test_without_a_gpu_somebody_has_to_say_so(capsys):
    arguments = [word for word in SMALL if word != "--yes"]
    assert run(["finetune", *arguments, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "there is no GPU: a picture takes " in said
    assert "and 1 epoch about " in said
