"""One key for a store: another is refused before a patient gets a second id."""

import pickle
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

import embedstore as es
from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.encoders.registry import image_encoder
from embedstore.errors import DataError, StoreError
from embedstore.extraction.dry_run import dry_run
from embedstore.extraction.progress import Observer
from embedstore.extraction.same_key import keep_key
from embedstore.store.documents import (
    open_store_document,
    parse_store_document,
    read_document,
    write_document,
    write_store_document,
)
from embedstore.store.layout import StoreLayout

REAL = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        dataset = pydicom.dcmread(REAL / "CT_small.dcm")
        dataset.PatientID, dataset.SOPInstanceUID = f"P{number}", generate_uid()
        (tmp_path / "images" / f"p{number}").mkdir(parents=True)
        dataset.save_as(tmp_path / "images" / f"p{number}" / "1.dcm")
    return tmp_path / "images"


def extract(folder, store, key_file, **options):
    said = []
    collection = DicomFolder(key_file, **options).read(folder)
    summary = es.extract(collection, store, observer=Observer(say=said.append))
    return summary, said


def forget_fingerprint(store):
    """Make the store one from before keys were noted."""
    layout = StoreLayout(store).part(0)
    document, _ = read_document(layout.plan_file)
    for name in ("key_fingerprint", "hides_paths"):
        document.pop(name, None)
    digest = write_document(layout.plan_file, document, label="part")
    identity, _ = parse_store_document(store, open_store_document(store))
    write_store_document(store, identity, [{"number": 0, "sha256": digest}])


def test_a_new_key_is_said_once_and_the_store_knows_it_again(folder, tmp_path):
    _, said = extract(folder, tmp_path / "s", tmp_path / "keys" / "h.key")
    assert [line for line in said if "made a new key" in line] == [said[0]]
    summary, said = extract(folder, tmp_path / "s", tmp_path / "keys" / "h.key")
    assert (summary.images, said) == (3, [])
    assert len(es.open_store(tmp_path / "s").parts) == 1


def test_a_mistyped_key_file_is_refused_and_not_made(folder, tmp_path):
    extract(folder, tmp_path / "s", tmp_path / "h.key")
    with pytest.raises(StoreError, match=r"there is no key file .*typo\.key.* part 0 of store"):
        extract(folder, tmp_path / "s", tmp_path / "typo.key")
    assert not (tmp_path / "typo.key").exists()


def test_another_key_is_refused_with_both_fingerprints(folder, tmp_path):
    extract(folder, tmp_path / "s", tmp_path / "h.key")
    (tmp_path / "other.key").write_bytes(b"another key of enough bytes")
    with pytest.raises(StoreError, match="is another key than that of part 0") as caught:
        extract(folder, tmp_path / "s", tmp_path / "other.key")
    assert es.open_store(tmp_path / "s").parts[0].plan.key_fingerprint in str(caught.value)
    assert not (tmp_path / "other.key.paths.parquet").exists()


def test_a_key_inside_the_store_is_refused_before_it_is_made(folder, tmp_path):
    with pytest.raises(DataError, match="lies inside"):
        extract(folder, tmp_path / "s", tmp_path / "s" / "h.key")
    assert not (tmp_path / "s").exists()


def test_a_store_from_before_is_continued_as_it_was_begun(folder, tmp_path):
    """Its ids are paths; the key is the same where it gives the same patients."""
    store, key = tmp_path / "s", tmp_path / "h.key"
    extract(folder, store, key, hide_paths=False)
    forget_fingerprint(store)
    with pytest.raises(StoreError, match="To hide them, extract into a new store"):
        extract(folder, store, key)
    shutil.copytree(folder / "p0", folder / "p3")
    dataset = pydicom.dcmread(folder / "p3" / "1.dcm")
    dataset.SOPInstanceUID = generate_uid()
    dataset.save_as(folder / "p3" / "1.dcm")
    summary, said = extract(folder, store, key, hide_paths=False)
    assert (summary.images, said) == (4, [])
    assert es.open_store(store).parts[1].plan.key_fingerprint


def test_another_key_is_found_by_the_patients_of_a_store_from_before(folder, tmp_path):
    store = tmp_path / "s"
    extract(folder, store, tmp_path / "h.key", hide_paths=False)
    forget_fingerprint(store)
    (tmp_path / "other.key").write_bytes(b"another key of enough bytes")
    with pytest.raises(StoreError, match="is another key"):
        extract(folder, store, tmp_path / "other.key", hide_paths=False)


def test_where_nothing_can_be_compared_it_is_said(folder, tmp_path):
    store = tmp_path / "s"
    extract(folder / "p0", store, tmp_path / "h.key", hide_paths=False)
    forget_fingerprint(store)
    dataset = pydicom.dcmread(folder / "p1" / "1.dcm")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    (tmp_path / "other").mkdir()
    dataset.save_as(tmp_path / "other" / "2.dcm")
    _, said = extract(tmp_path / "other", store, tmp_path / "h.key", hide_paths=False)
    assert [line for line in said if "cannot be told" in line] == said


def test_a_part_keeps_no_folder_of_the_machine(folder, tmp_path):
    extract(folder, tmp_path / "out" / "s", tmp_path / "h.key")
    extract(folder, tmp_path / "out" / "plain", tmp_path / "h.key", hide_paths=False)
    hidden, plain = (es.open_store(tmp_path / "out" / name).parts[0].plan for name in ("s", "plain"))
    assert plain.root == "../images"
    assert len(hidden.root) == 32
    assert int(hidden.root, 16) >= 0


def test_computing_processes_get_no_clinical_ids(folder, tmp_path):
    """What the owner's map is made of goes to no other process or machine."""
    collection = keep_key(DicomFolder(tmp_path / "h.key").read(folder), tmp_path / "s", say=lambda line: None)
    assert collection.owner_rows is None
    assert b"P1" not in pickle.dumps(collection.manifest)
    assert not collection.key.is_new


def test_a_dry_run_says_what_is_wrong_with_a_file_and_nothing_of_what_it_says(folder, tmp_path):
    dataset = pydicom.dcmread(folder / "p1" / "1.dcm")
    dataset.PhotometricInterpretation = "ANNA MUELLER"
    dataset.save_as(folder / "p1" / "1.dcm")
    collection = DicomFolder(tmp_path / "h.key").read(folder)
    found = dry_run(collection, tmp_path / "s", image_encoder("hog"))
    (refusal,) = found.refused.values()
    assert refusal.message == "PhotometricInterpretation ... has no conversion to RGB"
    summary, _ = extract(folder, tmp_path / "s", tmp_path / "h.key")
    assert dict(summary.failed) == {"unsupported": 1}
    assert [failure.message for failure in es.open_store(tmp_path / "s").failures] == [refusal.message]
