"""Study1 of every patient is one study each; one study of two patients is an error in the table."""

import pytest

from embedstore.datasets.label_table import read_label_table
from embedstore.datasets.table import Table
from embedstore.errors import DataError, UsageError


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


SITES = [
    (f"{site}{p}{i}.png", site, str(p), f"{site}{p}") for site in "AB" for p in (1, 2, 3) for i in (1, 2)
]
HEADER = "path,Hospital Site,patient_id,study_id"


def test_patients_numbered_anew_within_sites_are_refused_until_it_is_said_which_they_are(tmp_path):
    with pytest.raises(DataError, match=r"3 ids with several Hospital Site, such as '1' of 'A', 'B'"):
        read(tmp_path, SITES, HEADER)
    joined = read(tmp_path, SITES, HEADER, within_parent="patient_id=Hospital Site")
    assert joined.summary["patients"] == 6
    assert joined.manifest.column("patient_id")[::2] == ["A/1", "A/2", "A/3", "B/1", "B/2", "B/3"]
    assert read(tmp_path, SITES, HEADER, as_written="patient_id").summary["patients"] == 3


def test_patients_of_several_sites_with_one_sex_are_the_same_and_with_two_are_refused(tmp_path):
    header = "path,site,patient_id,sex"
    rows = [(f"{site}{p}.png", site, str(7 * p), "MF"[p % 2]) for site in "AB" for p in range(1, 5)]
    collection = read(tmp_path, rows, header)
    assert collection.summary["patients"] == 4
    assert str(collection.summary["column patient_id"]).startswith("4 ids of several site taken as the same")
    other = [(path, site, patient, "M" if site == "A" else "F") for path, site, patient, _ in rows]
    with pytest.raises(DataError, match="within_parent` patient_id=site, or `as_written` patient_id"):
        read(tmp_path, other, header)


def test_a_patient_of_two_sexes_is_said(tmp_path):
    rows = [("1.png", "P", "M"), ("2.png", "P", "F"), ("3.png", "Q", "M")]
    summary = read(tmp_path, rows, "path,patient_id,sex").summary
    assert summary["column patient_id"] == "1 id with several sex, such as 'P'"


def test_a_parent_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="takes study_id, series_id and patient_id=COLUMN; found 'patient'"):
        Table(within_parent=["patient"])
