import os
import shutil
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from PIL import Image

from embedstore.errors import DataError
from embedstore.manifest import path_from_manifest
from embedstore.queries.user_files import gather_inputs

REAL = Path(pydicom.data.__file__).parent / "test_files"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def test_the_images_directly_in_one_folder_are_one_study(tmp_path):
    for name in ("a/1.png", "a/2.PNG", "b/c/3.jpg", "b/c/4.pgm", "b/._4.png", "b/notes.txt"):
        picture(tmp_path / name) if name.endswith(("png", "PNG", "jpg", "pgm")) else (
            tmp_path / name
        ).write_text("x")
    inputs = gather_inputs([Path()])
    assert [record.path for record in inputs.records] == ["a/1.png", "a/2.PNG", "b/c/3.jpg", "b/c/4.pgm"]
    assert inputs.studies == ("a", "a", "b/c", "b/c")
    assert inputs.root == tmp_path


def test_a_named_file_is_a_study_of_its_own_whatever_its_ending(tmp_path):
    picture(tmp_path / "a/1.png")
    os.rename(tmp_path / "a/1.png", tmp_path / "a/picture")
    inputs = gather_inputs([Path("a/picture"), picture(tmp_path / "b/2.png")])
    assert inputs.studies == ("a/picture", str(tmp_path / "b/2.png"))
    assert [path_from_manifest(inputs.root, record.path).exists() for record in inputs.records] == [
        True,
        True,
    ]


def test_dicom_is_known_by_its_content_and_gives_a_record_per_frame(tmp_path):
    shutil.copy(REAL / "MR_small.dcm", tmp_path / "one")
    shutil.copy(REAL / "SC_rgb_rle_2frame.dcm", tmp_path / "two.dcm")
    shutil.copy(REAL / "rtplan.dcm", tmp_path / "plan.dcm")
    (tmp_path / "README").write_text("no image")
    inputs = gather_inputs([tmp_path])
    assert [(record.path, record.frame) for record in inputs.records] == [
        ("one", 0),
        ("two.dcm", 0),
        ("two.dcm", 1),
    ]
    assert [record.modality for record in inputs.records] == ["MR", "OT", "OT"]
    assert [bool(record.series_id) for record in inputs.records] == [True, False, False]


def test_pages_of_a_tiff_are_records_and_so_are_frames_of_a_file_without_an_ending(tmp_path):
    pages = [Image.fromarray(np.full((4, 4), grey, np.uint8)) for grey in (1, 2, 3)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    shutil.copy(REAL / "rtdose.dcm", tmp_path / "dose")
    inputs = gather_inputs([tmp_path])
    assert [record.image_id for record in inputs.records] == [
        *["dose", *(f"dose#{frame}" for frame in range(1, 15))],
        *["scan.tif", "scan.tif#1", "scan.tif#2"],
    ]
    assert [record.frame for record in inputs.records] == [*range(15), *range(3)]
    assert len(set(inputs.studies)) == 1


def test_a_broken_header_fails_by_its_name_and_what_is_no_image_is_left_out(tmp_path):
    shutil.copy(REAL / "CT_small.dcm", tmp_path / "good.dcm")
    (tmp_path / "cut.dcm").write_bytes((REAL / "CT_small.dcm").read_bytes()[:500])
    shutil.copy(REAL / "liver_1frame.dcm", tmp_path / "segments.dcm")
    inputs = gather_inputs([tmp_path])
    assert [record.path for record in inputs.records] == ["cut.dcm", "good.dcm"]


def test_names_that_are_not_utf8_are_taken(tmp_path):
    picture(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\xe9.png")
    inputs = gather_inputs([tmp_path])
    assert path_from_manifest(inputs.root, inputs.records[0].path).exists()


def test_nothing_to_predict_for_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        gather_inputs([Path("gone.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no image found"):
        gather_inputs([Path("empty")])
