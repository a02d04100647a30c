"""A store with pseudonyms, asked in the words of the clinic."""

import csv
from pathlib import Path

import pytest

import embedstore as es
from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.errors import DataError, UsageError
from embedstore.keys.key_file import Key, read_key
from embedstore.queries.clinical_ids import ClinicalIds, parse_by
from embedstore.queries.conditions import parse_conditions, select_records
from embedstore.store.reader import open_store
from embedstore.tables.table_file import read_rows
from tests.hospital import write_hospital


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the hospital, its store and its key."""
    folder = tmp_path_factory.mktemp("clinic")
    hospital = write_hospital(folder / "archive", studies=4)
    es.extract(DicomFolder(folder / "h.key").read(hospital.root), folder / "s.store")
    return hospital, open_store(folder / "s.store"), read_key(folder / "h.key")


def table(folder, header, *rows):
    with Path(folder, "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return read_rows(Path(folder, "labels.csv"))


def ids(store, column):
    return set(store.table.column(column).to_pylist())


@pytest.mark.parametrize("attribute", ["PatientID", "StudyInstanceUID", "AccessionNumber"])
def test_labels_of_studies_are_found_by_what_the_clinic_calls_them(made, tmp_path, attribute):
    hospital, store, key = made
    values = {"PatientID": hospital.patients, "StudyInstanceUID": hospital.studies,
              "AccessionNumber": hospital.accessions}[attribute]  # fmt: skip
    rows = table(tmp_path, [attribute, "x"], *((value, "no") for value in values))
    found = ClinicalIds(store, key).rows(rows, unit="study", by=attribute, targets=())
    assert list(found.columns) == ["study_id", "x"]
    assert set(found.columns["study_id"]) == ids(store, "study_id")


def test_two_rows_for_one_patient_are_refused_in_the_words_of_the_table(made, tmp_path):
    hospital, store, key = made
    patient = hospital.patients[0]
    rows = table(
        tmp_path, ["PatientID", "x"], (patient, "no"), (hospital.patients[1], "no"), (patient, "yes")
    )
    with pytest.raises(
        DataError,
        match=rf"line 4: PatientID '{patient}' stands twice, with other cells on line 2; a row labels every",
    ):
        ClinicalIds(store, key).rows(rows, unit="study", by="PatientID", targets=())
    # The same row twice says nothing else.
    again = table(tmp_path, ["PatientID", "x"], (patient, "no"), (patient, "no"))
    assert set(
        ClinicalIds(store, key).rows(again, unit="study", by="PatientID", targets=()).columns["x"]
    ) == {"no"}


def test_labels_of_images_are_found_by_their_instance_and_a_column_of_another_name(made, tmp_path):
    hospital, store, key = made
    rows = table(tmp_path, ["UID", "x"], (hospital.instances[2], "a"), ("1.2.3", "b"))
    found = ClinicalIds(store, key).rows(rows, unit="image", by="SOPInstanceUID=UID", targets=())
    assert found.columns["image_id"] == [
        key.id_of("image", hospital.instances[2]), key.id_of("image", "1.2.3")
    ]  # fmt: skip
    assert list(found.places) == ["line 2", "line 3"]


def test_without_by_the_unit_s_own_column_may_hold_clinical_ids_or_the_store_s(made, tmp_path):
    hospital, store, key = made
    own = key.id_of("study", hospital.studies[1])
    rows = table(tmp_path, ["study_id", "x"], (hospital.studies[0], "a"), (own, "b"))
    found = ClinicalIds(store, key).rows(rows, unit="study", by=None, targets=())
    assert found.columns["study_id"] == [key.id_of("study", hospital.studies[0]), own]


def test_what_is_no_label_stays_out(made, tmp_path):
    hospital, store, key = made
    header = ["StudyInstanceUID", "PatientID", "AccessionNumber", "Name", "x"]
    rows = table(tmp_path, header, (hospital.studies[0], "P", "A", "Anna", "yes"))
    known = ClinicalIds(store, key)
    with pytest.raises(UsageError, match="which of Name, x are labels"):
        known.rows(rows, unit="study", by="StudyInstanceUID", targets=())
    found = known.rows(rows, unit="study", by="StudyInstanceUID", targets=("x",))
    assert list(found.columns) == ["study_id", "x"]
    with pytest.raises(UsageError, match="'PatientID' says who a patient is"):
        known.rows(rows, unit="study", by="StudyInstanceUID", targets=("PatientID",))


def test_a_table_that_does_not_match_is_told_the_way(made, tmp_path):
    hospital, store, _ = made
    rows = table(tmp_path, ["AccessionNumber", "StudyInstanceUID", "x"], ("A", hospital.studies[0], "yes"))
    with pytest.raises(
        DataError, match=r"give `key_file`, and `by` the one of StudyInstanceUID, AccessionNumber"
    ):
        ClinicalIds(store).rows(rows, unit="study", by=None, targets=())
    with pytest.raises(UsageError, match="needs the key"):
        ClinicalIds(store).rows(rows, unit="study", by="AccessionNumber", targets=())


def test_an_image_is_named_by_its_instance_or_by_a_study_that_has_one(made):
    hospital, store, key = made
    known = ClinicalIds(store, key)
    wanted = key.id_of("image", hospital.instances[1])
    assert known.image_id(hospital.instances[1]) == wanted
    assert known.image_id(wanted) == wanted
    with pytest.raises(DataError, match="names 2 images of store"):
        known.image_id(hospital.patients[1], "PatientID")
    with pytest.raises(DataError, match=r"no image of store .* has this PatientID"):
        known.image_id("nobody", "PatientID")
    with pytest.raises(DataError, match="give `key_file`"):
        ClinicalIds(store).image_id(hospital.instances[1])


def test_units_are_named_by_what_the_clinic_calls_them(made):
    hospital, store, key = made
    known = ClinicalIds(store, key)
    rows = store.table.select(["image_id", "study_id"]).to_pylist()
    study, image = key.id_of("study", hospital.studies[1]), key.id_of("image", hospital.instances[1])
    of_study = [row["image_id"] for row in rows if row["study_id"] == study]
    assert len(of_study) == 2
    assert image in of_study
    for text, by in (
        (hospital.studies[1], None),
        (hospital.studies[1], "StudyInstanceUID"),
        (hospital.accessions[1], "AccessionNumber"),
        (hospital.patients[1], "PatientID"),
    ):
        assert known.unit_ids([text], by) == of_study, by
    assert known.unit_ids([hospital.instances[1], image, study]) == [image, image, study]
    with pytest.raises(DataError, match="has this AccessionNumber"):
        known.unit_ids(["nobody"], "AccessionNumber")
    with pytest.raises(UsageError, match=r"`by`=PatientID needs the key"):
        ClinicalIds(store).unit_ids(["x"], "PatientID")


def test_conditions_may_name_clinical_ids(made):
    hospital, store, key = made
    patient = key.id_of("patient", hospital.patients[3])
    known = ClinicalIds(store, key)
    for asked in (f"PatientID={hospital.patients[3]}", f"patient_id={hospital.patients[3]}"):
        assert known.where(parse_conditions([asked])) == parse_conditions([f"patient_id={patient}"])
    several = f"PatientID in {hospital.patients[3]},{hospital.patients[2]}"
    (both,) = known.where(parse_conditions([several]))
    assert (both.column, both.operator, both.values) == (
        "patient_id",
        "in",
        (patient, key.id_of("patient", hospital.patients[2])),
    )
    own = parse_conditions([f"patient_id={patient}", "modality!=DX"])
    assert known.where(own) == own
    with pytest.raises(UsageError, match="PatientID is not in the store"):
        ClinicalIds(store).where(parse_conditions(["PatientID=x"]))


def test_another_key_is_refused(made, tmp_path):
    with pytest.raises(DataError, match="another key than that of part 0"):
        ClinicalIds(made[1], Key(tmp_path / "k", b"another key of enough bytes"))


def test_an_unknown_attribute_is_answered_with_those_that_there_are():
    assert parse_by("accessionnumber=Auftrag") == ("AccessionNumber", "Auftrag")
    with pytest.raises(UsageError, match=r"found 'StudyUID'\. Did you mean 'StudyInstanceUID'"):
        parse_by("StudyUID")


def test_an_extraction_may_leave_out_by_clinical_ids(made):
    """Before anything is decoded, by the key of the data set itself."""
    hospital, _, key = made
    collection = DicomFolder(key.path).read(hospital.root)
    chosen = select_records(collection, parse_conditions([f"PatientID={hospital.patients[2]}"]))
    assert set(chosen.manifest.column("patient_id")) == {key.id_of("patient", hospital.patients[2])}
    assert hospital.patients[2] not in str(dict(chosen.summary))
