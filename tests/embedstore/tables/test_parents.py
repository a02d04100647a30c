"""Study1 of every patient is one study each; one study of two patients is an error in the table."""

import pytest

from embedstore.datasets.label_table import read_label_table
from embedstore.datasets.table import Table
from embedstore.errors import DataError


def read(folder, rows, header="path,patient_id,study_id", **options):
    path = folder / "t.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return Table(**options).read(path)


def test_ids_numbered_within_patients_are_joined_with_them_and_it_is_said(tmp_path):
    rows = [(f"{p}{s}.png", f"P{p}", f"study{s}") for p in range(10) for s in (1, 2)]
    collection = read(tmp_path, rows)
    assert collection.manifest.column("study_id") == [f"P{p}/study{s}" for p in range(10) for s in (1, 2)]
    assert collection.summary["studies"] == 20
    assert collection.summary["column study_id"] == (
        "2 ids numbered anew within patient_id, joined with it as 'P0/study1'"
    )


def test_series_are_joined_with_their_studies_and_images_with_their_series(tmp_path):
    rows = [
        (f"{p}{s}{e}{i}.png", f"P{p}", str(s), str(e), f"{i}.dcm")
        for p in range(3)
        for s in (1, 2)
        for e in (1, 2)
        for i in (1, 2)
    ]
    manifest = read(tmp_path, rows, "path,patient_id,study_id,series_id,image_id").manifest
    assert manifest.column("series_id")[-1] == "P2/2/2"
    assert manifest.column("image_id")[-1] == "P2/2/2/2.dcm"
    assert len(set(manifest.column("image_id"))) == 24


def test_one_study_of_two_patients_among_many_is_refused_with_its_row(tmp_path):
    rows = [(f"{row}.png", f"P{row // 3}", f"S{row // 3}") for row in range(60)]
    rows[7] = ("7.png", "P9", "S2")
    with pytest.raises(DataError, match=r"'S2' of 'P2' \(2 rows\) and 'P9' \(1 row\), 'P9' on line 9"):
        read(tmp_path, rows)
    assert read(tmp_path, rows, as_written="study_id").manifest.column("study_id")[7] == "S2"
    joined = read(tmp_path, rows, within_parent="study_id").manifest.column("study_id")
    assert (joined[6], joined[7]) == ("P2/S2", "P9/S2")


def test_a_numbered_study_without_patient_is_refused(tmp_path):
    rows = [(f"{p}.png", f"P{p}", "1") for p in range(5)] + [("x.png", "NA", "1")]
    with pytest.raises(DataError, match=r"line 7: .* 1 row, this the first, have no patient_id"):
        read(tmp_path, rows)


def test_labels_of_numbered_studies_find_those_of_the_store(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("patient_id,study_id,sign\nP1,study1,yes\nP2,study1,no\n")
    known = {"P1/study1", "P1/study2", "P2/study1"}
    task, facts = read_label_table(path, name="sign", unit="study", known=known)
    assert task.labels.to_pydict() == {"unit_id": ["P1/study1", "P2/study1"], "sign": ["yes", "no"]}
    assert facts["column study_id"] == "2 ids joined with patient_id, as the store has them"
    path.write_text("patient_id,study_id,sign\nP1,S1,yes\nP2,S2,no\n")
    task, facts = read_label_table(path, name="sign", unit="study", known={"S1", "S2"})
    assert task.labels.column("unit_id").to_pylist() == ["S1", "S2"]
    assert "column study_id" not in facts


def test_studies_of_their_own_are_left_alone(tmp_path):
    rows = [(f"{p}.png", f"P{p // 2}", f"S{p // 2}") for p in range(10)]
    collection = read(tmp_path, rows)
    assert collection.manifest.column("study_id") == [f"S{p // 2}" for p in range(10)]
    assert "column study_id" not in collection.summary
