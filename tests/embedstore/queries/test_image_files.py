"""Where images lie: by the store, or by the owner's map; also after archive and project have moved."""

import shutil

import pytest

import embedstore as es
from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.datasets.table import Table
from embedstore.keys.key_file import read_key
from embedstore.queries.image_files import ImageFiles, hidden_images
from embedstore.store.reader import open_store
from tests.hospital import write_hospital


@pytest.fixture
def project(tmp_path):
    hospital = write_hospital(tmp_path / "project" / "archive", studies=2)
    es.extract(
        DicomFolder(tmp_path / "vault" / "h.key").read(hospital.root), tmp_path / "project" / "s.store"
    )
    return hospital, tmp_path / "project" / "s.store", tmp_path / "vault" / "h.key"


def test_hidden_files_are_found_by_their_owner_alone(project):
    hospital, path, key_file = project
    store, key = open_store(path), read_key(key_file)
    assert hidden_images(store) == store.rows
    assert ImageFiles().paths(store) == {}
    found = ImageFiles(key).paths(store)
    assert found[key.id_of("image", hospital.instances[0])] == hospital.files[0]


def test_an_archive_that_moved_is_found_once_it_was_read_again(project, tmp_path):
    hospital, path, key_file = project
    shutil.move(hospital.root, tmp_path / "moved")
    es.extract(DicomFolder(key_file).read(tmp_path / "moved"), path)
    found = ImageFiles(read_key(key_file)).paths(open_store(path))
    assert len(open_store(path).parts) == 1
    assert all(place.is_file() and tmp_path / "moved" in place.parents for place in found.values())


def test_visible_paths_are_seen_from_the_store_and_move_with_the_project(tmp_path):
    hospital = write_hospital(tmp_path / "a" / "images", studies=1)
    name = hospital.files[0].relative_to(tmp_path / "a")
    (tmp_path / "a" / "table.csv").write_text(f"path\n{name}\n")
    es.extract(Table().read(tmp_path / "a" / "table.csv"), tmp_path / "a" / "s.store")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert list(ImageFiles().paths(open_store(tmp_path / "b" / "s.store")).values()) == [
        tmp_path / "b" / name
    ]
