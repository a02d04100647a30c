"""From a hospital's folder to a colleague: what is handed over says of nobody who it is, and its owner still works."""

import base64
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.main import run
from embedstore.keys.key_file import read_key
from embedstore.queries.thumbnails import thumbnails_of_units
from embedstore.store.reader import open_store
from tests.hospital import leaks, write_hospital


def embed(*arguments, capfd):
    """Run a command; return its exit code and everything it printed."""
    code = run([str(argument) for argument in arguments])
    printed = capfd.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def owner(tmp_path, monkeypatch):
    """Return the hospital's files; the current folder is that of a project beside them."""
    made = write_hospital(tmp_path / "Archiv_Seefeld")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    rows = [["Patient", "StudyInstanceUID", "AccessionNumber", "PatientID", "fracture"]]
    cells = zip(made.studies, made.accessions, made.patients, strict=True)
    for number, (study, accession, patient) in enumerate(cells):
        rows.append([f"Frau {number}", study, accession, patient, "yes" if number % 2 else "no"])
    with Path("befunde.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return made


def test_what_is_handed_over_names_nobody_and_its_owner_still_works(owner, tmp_path, capfd):
    log = tmp_path / "logs"
    log.mkdir()

    def owned(*arguments, code=0, kept=True):
        found, out, err = embed(*arguments, capfd=capfd)
        assert found == code, (arguments, out, err)
        if kept:
            (log / f"{len(list(log.iterdir()))}.txt").write_text(out + err)
        return out + err

    owned("init", "--dataset", "dicom-folder", "--root", owner.root, "--key-file", "private/hospital.key")
    text = Path("embed.toml").read_text()
    assert 'key_file = "private/hospital.key"' in text
    assert "made none" not in owned("extract", "--dry-run", kept=False)
    assert not Path("private").exists()
    # Two of 50 images cannot be read, which is more than the default allows to fail in silence.
    printed = owned("extract", "--max-failed", 0.1)
    assert "made a new key" in printed
    assert "hospital.key (0600): keep it" in printed
    for name in ("hospital.key", "hospital.key.paths.parquet"):
        assert Path("private", name).stat().st_mode & 0o777 == 0o600
    label = ["label", "--name", "fracture", "--csv", "befunde.csv", "--by", "StudyInstanceUID"]
    assert "which of Patient, fracture are labels" in owned(*label, code=2, kept=False)
    assert "24 rows, 24 in the store" in owned(*label, "--target", "fracture")
    owned("probe", "--cross-validate", "--thumbnails", "--draws", 50, "--folds", 3, "--task", "fracture")
    (run_folder,) = Path("runs").iterdir()
    printed = (log / f"{len(list(log.iterdir())) - 1}.txt").read_text()
    assert "holds vectors of patients' images (outliers.safetensors 48)" in printed
    assert "hand it on only to who may have those" in (run_folder / "report.html").read_text()

    # The owner finds images by what the clinic calls them, and files by what the store calls them.
    printed = embed("search", "--id", owner.instances[3], "-k", 2, "--json", capfd=capfd)[1]
    near = json.loads(printed)["queries"][0]
    assert near["image_id"] in open_store("dicom-folder.store").row_of
    alone = embed(
        "search",
        "--id",
        owner.instances[3],
        "--where",
        f"PatientID={owner.patients[5]}",
        "--json",
        capfd=capfd,
    )
    assert len(json.loads(alone[1])["hits"]) == 1
    by_order = ["--id", owner.accessions[3], "--by", "AccessionNumber"]
    by_patient = ["--where", f"PatientID={owner.patients[3]}"]
    said = [
        embed("predict", "--probe", run_folder, *asked, capfd=capfd)[1] for asked in (by_order, by_patient)
    ]
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 1
    _, answers, said = embed("predict", "--probe", run_folder, owner.files[3], capfd=capfd)
    assert json.loads(answers)["path"] == str(owner.files[3])
    assert "--no-paths leaves them out" in said
    owned("predict", "--probe", run_folder, owner.files[3], "--no-paths")
    own = open_store("dicom-folder.store").table.to_pylist()
    patient = next(row["patient_id"] for row in own if row["image_id"] == near["image_id"])
    neighbors = {entry["image_id"] for entry in json.loads(answers)["neighbors"]}
    assert neighbors
    assert not neighbors & {row["image_id"] for row in own if row["patient_id"] == patient}
    store, study = open_store("dicom-folder.store"), own[0]["study_id"]
    assert thumbnails_of_units([store], [study], "study") == {}
    pictures = thumbnails_of_units([store], [study], "study", key=read_key("private/hospital.key"))
    assert pictures[study].startswith(b"\xff\xd8")
    owned("extract", "--retry-failed", "--max-failed", 0.1)
    owned("keys", "private/who.csv", kept=False)
    with Path("private/who.csv").open(newline="") as file:
        who = {(row["level"], row["clinical_id"]): row for row in csv.DictReader(file)}
    assert who["image", owner.instances[3]]["file"] == str(owner.files[3])
    assert who["patient", owner.patients[3]]["keyed_id"] == patient

    handed = tmp_path / "colleague"
    handed.mkdir()
    shutil.move("dicom-folder.store", handed / "hospital.store")
    shutil.move("runs", handed / "runs")
    _as_colleague(handed, handed / "runs" / run_folder.name, log, capfd)
    assert leaks(owner.secrets, handed, log) == []


def _as_colleague(handed, run_folder, log, capfd):
    """Do what somebody does who got a store and a run; what is printed goes to the logs."""
    store = handed / "hospital.store"
    image_id = open_store(store).image_ids[0]
    private = handed.parent / "project" / "private"
    shutil.move(private, handed.parent / "vault")
    shutil.move(handed.parent / "project" / "embed.toml", handed.parent / "vault" / "embed.toml")
    commands = (
        ("info", store), ("info", store, "--json"), ("info", store, "--failures"), ("verify", store),
        ("search", "--store", store, "--id", image_id), ("search", "--store", store, "--id", image_id, "--json"),
        *(("export", store, handed / f"x.{ending}") for ending in ("h5", "npz", "parquet")),
        ("probe", "--store", store, "--cross-validate", "--draws", 20, "--folds", 3, "--no-bank", "--thumbnails",
         "--out", handed / "own"),
        ("predict", "--probe", run_folder, store), ("predict", "--probe", handed / "own", store),
        ("report", run_folder, "--out", handed / "again.html"),
    )  # fmt: skip
    for number, arguments in enumerate(commands):
        code, out, err = embed(*arguments, capfd=capfd)
        assert code == 0, (arguments, out, err)
        (log / f"colleague-{number}.txt").write_text(out + err)
    assert not (handed / "own" / "outliers.safetensors").exists()
    # What needs the files or the clinical ids is refused in plain words.
    code, _, err = embed("search", "--store", store, "--id", "PAT-48213", "--by", "PatientID", capfd=capfd)
    assert code != 0
    assert "--by=PatientID needs the key of the store's ids: --key-file" in err


def test_a_file_that_is_searched_for_a_leak_is_opened(tmp_path):
    """The search must find what lies in tables, archives and base64, or the test above holds nothing."""
    np.savez_compressed(tmp_path / "a.npz", names=np.array(["Müller", "x"]))
    pq.write_table(pa.table({"path": ["Müller_Änne/1.dcm"]}), tmp_path / "b.parquet", compression="zstd")
    (tmp_path / "c.html").write_text(f"base64,{base64.b64encode('Herr Müller ist da'.encode()).decode()}")
    (tmp_path / "d.txt").write_bytes("MÜLLER".encode("latin-1"))
    (tmp_path / "e.json").write_text(json.dumps("müller"))
    (tmp_path / "Müller.bin").touch()
    found = {Path(name).suffix for name, _ in leaks({"Müller"}, tmp_path)}
    assert found == {".npz", ".parquet", ".html", ".txt", ".json", ".bin"}


def test_a_project_without_its_key_answers_what_needs_none(owner, capfd):
    """Whoever got the folder with its embed.toml has no key, and searches by the store's own ids all the same."""
    assert (
        embed(
            "init", "--dataset", "dicom-folder", "--root", owner.root, "--key-file", "k/h.key", capfd=capfd
        )[0]
        == 0
    )
    # Ids of a key that is forgotten lead nowhere.
    cut = owner.files[0].with_name("cut.dcm")
    cut.write_bytes(owner.files[0].read_bytes()[:-300])
    assert "/cut.dcm: " in embed("extract", "--dry-run", capfd=capfd)[1]
    cut.unlink()
    code, _, err = embed("extract", "--limit", 4, "--max-failed", 0.5, capfd=capfd)
    assert code == 0, err
    image_id = open_store("dicom-folder.store").image_ids[0]
    shutil.rmtree("k")
    code, out, err = embed("search", "--id", image_id, "-k", 1, "--same-patient", capfd=capfd)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 2
    code, _, err = embed("extract", capfd=capfd)
    assert code == 1
    assert "there is no key file" in err
    assert "h.key, and a new key would give the patients of part 0" in err
    assert not Path("k").exists()


def test_a_reader_without_identifiable_files_needs_no_key(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archive").mkdir()
    code, _, err = embed("init", "--dataset", "dicom-folder", "--root", "archive", capfd=capfd)
    assert code == 2
    assert "dicom-folder needs --key-file FILE" in err
    assert embed("init", "--dataset", "mura", "--root", "archive", capfd=capfd)[0] == 0
