"""The owner's table of who is who: complete, private, and never where it would be handed on."""

import csv

import pytest

import embedstore as es
from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.errors import DataError, UsageError
from embedstore.keys.key_file import Key, read_key
from embedstore.queries.owner_mapping import write_mapping
from tests.hospital import write_hospital


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clinic")
    hospital = write_hospital(folder / "archive", studies=3)
    es.extract(DicomFolder(folder / "h.key").read(hospital.root), folder / "s.store")
    return hospital, folder


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_id_stands_beside_its_pseudonym_and_files_that_were_left_out_are_named(made, tmp_path):
    hospital, folder = made
    key = read_key(folder / "h.key")
    counts = write_mapping(tmp_path / "who.csv", key)
    assert (tmp_path / "who.csv").stat().st_mode & 0o777 == 0o600
    lines = read(tmp_path / "who.csv")
    assert {line["clinical_id"] for line in lines if line["level"] == "accession"} == set(hospital.accessions)
    for line in lines:
        if line["level"] != "left out":
            assert line["keyed_id"] == key.id_of(line["level"], line["clinical_id"])
    assert counts["patient"] == counts["study"] == 3
    left_out = {
        line["file"].rpartition("/")[2]: line["clinical_id"] for line in lines if line["level"] == "left out"
    }
    assert left_out["Kopie von Vollstädt.dcm"] == "a copy of another file"
    assert left_out["Befund Habermann.txt"] == "not DICOM"


def test_a_store_asks_for_its_own_ids(made, tmp_path):
    _, folder = made
    other = write_hospital(tmp_path / "other", studies=5, seed=1)
    collection = DicomFolder(folder / "h.key").read(other.root)
    es.extract(collection, tmp_path / "t.store", options=es.ExtractOptions(limit=2))
    counts = write_mapping(
        tmp_path / "who.csv", read_key(folder / "h.key"), store=es.open_store(tmp_path / "t.store")
    )
    assert counts["image"] == 2


def test_it_is_refused_where_it_would_be_handed_on(made, tmp_path):
    _, folder = made
    key = read_key(folder / "h.key")
    with pytest.raises(UsageError, match="lies in the store"):
        write_mapping(folder / "s.store" / "parts" / "who.csv", key)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="lies in the run"):
        write_mapping(tmp_path / "run" / "who.csv", key)


def test_without_a_map_the_way_to_one_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no map beside the key yet; run the extraction"):
        write_mapping(tmp_path / "who.csv", Key(tmp_path / "h.key", b"x" * 32))
