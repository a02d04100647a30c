import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from cli.main import run

SLIDES, WIDTH = 60, 8
DECLARED = "encoder=uni2,patch_px=256"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Slides as CLAM writes them, every other one shifted; a table of them with labels."""
    folder = tmp_path_factory.mktemp("import")
    rng = np.random.default_rng(0)
    (folder / "h5_files").mkdir()
    for number in range(SLIDES):
        features = rng.normal(size=(3, WIDTH)).astype(np.float32)
        features[:, 0] += 3 * (number % 2)
        with h5py.File(folder / "h5_files" / f"S{number:02d}.h5", "w") as file:
            file["features"], file["coords"] = features, np.arange(6).reshape(3, 2)
    rows = [f"P{number},S{number:02d},{['normal', 'tumour'][number % 2]}" for number in range(SLIDES)]
    (folder / "slides.csv").write_text("\n".join(["case_id,slide_id,kind", *rows, "P99,S99,normal"]) + "\n")
    labels = [f"S{number:02d},{['normal', 'tumour'][number % 2]}" for number in range(SLIDES)]
    (folder / "labels.csv").write_text("\n".join(["study_id,tumour", *labels]) + "\n")
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def import_slides(*more):
    return run(
        [
            "import",
            "h5_files",
            "--manifest",
            "slides.csv",
            "--column",
            "patient_id=case_id",
            "--store",
            "s",
            *more,
        ]
    )


def test_slides_are_imported_labelled_probed_and_predicted(capsys):
    assert import_slides("--declare", DECLARED) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "s: 180 of 180 vectors imported",
        "  read as the patches of 60 slides",
        "  left out, rows of the table without a vector: 1 (S99)",
    ]
    assert run(["info", "s"]) == 0
    shown = capsys.readouterr().out
    assert "declared  encoder=uni2, patch_px=256 (imported, not computed here" in shown
    assert run(["verify", "s"]) == 0
    assert run(["label", "s", "--name", "tumour", "--csv", "labels.csv"]) == 0
    assert (
        run(
            [
                "probe",
                "--store",
                "s",
                "--task",
                "tumour",
                "--head",
                "logistic",
                "--runs",
                "runs",
                "--draws",
                "50",
            ]
        )
        == 0
    )
    run_folder = next(path for path in Path("runs").iterdir() if path.is_dir())
    assert json.loads((run_folder / "run.json").read_text())["identity"]["declared"]["encoder"] == "uni2"
    capsys.readouterr()
    assert run(["search", "--id", "S01/0000", "--store", "s", "-k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["hits"]
    assert sum(int(entry["image_id"][1:3]) % 2 for entry in found) >= 2


def test_what_needs_the_encoder_is_refused_in_one_line(capsys):
    assert import_slides("--declare", DECLARED) == 0
    assert "180 vectors were there before, and are the same" in capsys.readouterr().out
    lines = ["path,patient_id", "a.png,P0"]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    assert run(["extract", "--dataset", "table", "--root", "t.csv", "--store", "s"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Error: store s holds vectors that were imported and are declared, not computed")


def test_a_declaration_is_needed_and_never_changes(capsys):
    assert run(["import", "h5_files", "--store", "other"]) == 2
    assert "Error: --declare must name the encoder that made the vectors" in capsys.readouterr().err
    assert import_slides("--declare", DECLARED) == 0
    assert import_slides("--declare", "encoder=uni2,patch_px=512") == 1
    assert "declared.patch_px: '256' there, '512' asked" in capsys.readouterr().err


def test_too_many_vectors_that_cannot_be_kept_show_in_the_exit_code(tmp_path, capsys):
    found = np.ones((10, 3), np.float32)
    found[0, 0] = np.nan
    np.savez(tmp_path / "f.npz", features=found, id=np.arange(10))
    arguments = ["import", str(tmp_path / "f.npz"), "--id-column", "id", "--declare", "encoder=a"]
    assert run([*arguments, "--store", str(tmp_path / "s"), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["valid"], document["failed"]) == (9, {"non-finite": 1})
    assert run([*arguments, "--store", str(tmp_path / "s"), "--max-failed", "0.2"]) == 0
