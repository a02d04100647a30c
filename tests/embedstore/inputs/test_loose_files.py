"""Files of no known data set: DICOM identifiers tell their studies, else their folders."""

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from PIL import Image
from pydicom import uid

from embedstore.errors import DataError
from embedstore.inputs.input_rows import ANCHOR, InputSources, rows_of_files
from embedstore.inputs.user_files import find_files
from embedstore.keys.key_file import Key
from embedstore.manifest import path_from_manifest
from tests.dicom_objects import AXIAL, dicom_object, save, with_pixels

REAL = Path(pydicom.data.__file__).parent / "test_files"


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def slice_of(path: Path, study: int, series: int, number: int, modality: str = "MR", **more: object) -> Path:
    made = dicom_object(
        uid.MRImageStorage,
        modality,
        StudyInstanceUID=f"1.2.3.{study}",
        SeriesInstanceUID=f"1.2.3.{study}.{series}",
        ImageOrientationPatient=list(AXIAL),
        ImagePositionPatient=[0.0, 0.0, 5.0 * number],
        PixelSpacing=[1.0, 1.0],
        **more,
    )
    return save(with_pixels(made, np.full((1, 4, 4), number, np.uint16)), path)


def rows(*paths: Path, unit: str = "study", **sources: object):
    return rows_of_files(find_files(paths).files, InputSources(**sources), unit)


def given(found, column: str) -> list[object]:
    cells = found.table.column(column).to_pylist()
    return [cell for cell, own in zip(cells, found.given, strict=True) if own]


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pictures_directly_in_one_folder_are_one_study_by_its_name(in_folder):
    for name in ("a/1.png", "a/2.PNG", "b/c/3.jpg", "b/c/4.pgm"):
        picture(in_folder / name)
    (in_folder / "b/notes.txt").write_text("x")
    found = rows(Path())
    assert given(found, "image_id") == ["a/1.png", "a/2.PNG", "b/c/3.jpg", "b/c/4.pgm"]
    assert found.units.tolist() == ["a", "a", "b/c", "b/c"]
    alone = rows(Path("a/2.PNG"))
    assert alone.units.tolist() == ["a", "a"]
    assert alone.given.tolist() == [False, True]


def test_ids_are_relative_to_the_data_set_then_to_the_project_and_else_absolute(in_folder, tmp_path_factory):
    elsewhere = picture(tmp_path_factory.mktemp("elsewhere") / "x/3.png")
    for name in ("data/a/1.png", "other/2.png"):
        picture(in_folder / name)
    found = rows(Path("data"), Path("other"), elsewhere, root=in_folder / "data", unit="image")
    assert sorted(found.units.tolist()) == sorted(["a/1.png", "other/2.png", str(elsewhere)])


def test_a_study_of_several_folders_is_one_and_a_folder_of_several_studies_is_several(in_folder):
    for series in (1, 2):
        for number in range(2):
            slice_of(in_folder / f"export/S{series}/{number}", 1, series, number)
    slice_of(in_folder / "export/S2/other", 2, 1, 0)
    found = rows(Path("export"))
    assert len(set(found.units.tolist())) == 2
    assert sorted(found.units.tolist().count(unit) for unit in set(found.units.tolist())) == [1, 4]
    one = rows(Path("export/S1"))
    assert given(one, "study_id") == given(found, "study_id")[:2]
    # The other folder's slices are known to be of the study, so that it can be said to be a part.
    assert len(one.given) == 4
    assert one.given.sum() == 2


def test_the_slices_beside_a_named_one_are_its_series(in_folder):
    for number in range(3):
        slice_of(in_folder / f"S/{number}.dcm", 1, 1, number)
    slice_of(in_folder / "S/other.dcm", 7, 1, 0)
    found = rows(Path("S/1.dcm"))
    assert found.given.tolist() == [False, True, False]
    assert len(set(found.table.column("series_id").to_pylist())) == 1


def test_a_secret_gives_the_keys_of_a_store_and_without_one_ids_are_the_same_everywhere(in_folder):
    slice_of(in_folder / "a/1", 1, 1, 0)
    slice_of(in_folder / "b/1", 1, 1, 0)
    plain = [rows(Path(name)).units.tolist()[0] for name in ("a", "b")]
    keyed = rows(Path("a"), key=Key(Path("k"), b"0123456789abcdef")).units.tolist()[0]
    assert plain[0] == plain[1] != keyed
    assert "1.2.3" not in plain[0]


def test_columns_of_headers_are_given_only_where_the_data_sets_mean_them(in_folder):
    slice_of(in_folder / "a/1", 1, 1, 0, BodyPartExamined="KNEE")
    assert "body_part" not in rows(Path("a")).columns
    asked = rows(Path("a"), header_columns=frozenset({"body_part", "plane"}))
    assert {"body_part", "plane", "modality"} <= asked.columns
    assert given(asked, "body_part") == ["KNEE"]
    assert given(asked, "plane") == ["axial"]
    assert "patient_id" not in asked.table.column_names


def test_dicom_is_known_by_its_content_and_gives_a_row_per_frame(in_folder):
    shutil.copy(REAL / "MR_small.dcm", in_folder / "1.2.840.1")
    shutil.copy(REAL / "SC_rgb_rle_2frame.dcm", in_folder / "two.dcm")
    shutil.copy(REAL / "rtplan.dcm", in_folder / "plan.dcm")
    shutil.copy(REAL / "liver_1frame.dcm", in_folder / "segments.dcm")
    (in_folder / "cut.dcm").write_bytes((REAL / "CT_small.dcm").read_bytes()[:500])
    (in_folder / "README").write_text("no image")
    found = rows(in_folder, unit="image")
    assert found.units.tolist() == ["1.2.840.1", "cut.dcm", "two.dcm", "two.dcm#1"]
    assert found.table.column("modality").to_pylist() == ["MR", None, "OT", "OT"]


def test_mr_slices_without_identifiers_are_a_series_by_folder_and_orientation(in_folder):
    for number in range(2):
        path = slice_of(in_folder / f"S/{number}", 1, 1, number)
        made = pydicom.dcmread(path)
        del made.SeriesInstanceUID, made.StudyInstanceUID
        made.save_as(path)
    found = rows(Path("S"))
    assert found.units.tolist() == ["S", "S"]
    series = set(found.table.column("series_id").to_pylist())
    assert len(series) == 1
    assert None not in series


def test_pages_of_a_tiff_are_rows(in_folder):
    pages = [Image.fromarray(np.full((4, 4), grey, np.uint8)) for grey in (1, 2, 3)]
    pages[0].save(in_folder / "scan.tif", save_all=True, append_images=pages[1:])
    assert rows(in_folder, unit="image").units.tolist() == ["scan.tif", "scan.tif#1", "scan.tif#2"]


def test_a_named_file_is_taken_whatever_its_ending_and_one_that_is_not_utf8(in_folder):
    picture(in_folder / "a/1.png").rename(in_folder / "a/picture")
    os.rename(picture(in_folder / "b.png"), os.fsencode(in_folder) + b"/\xff\xe9.png")
    assert given(rows(Path("a/picture")), "image_id") == ["a/picture"]
    found = rows(in_folder)
    (path,) = found.table.column("path").to_pylist()
    assert path_from_manifest(ANCHOR, path).exists()


def test_nothing_to_predict_for_is_one_clear_line(in_folder):
    (in_folder / "empty").mkdir()
    with pytest.raises(DataError, match="no image found; give images"):
        rows(Path("empty"))


def test_a_copy_is_a_row_of_its_own_and_a_description_says_no_more_than_the_weighting(in_folder):
    first = slice_of(in_folder / "a/1.dcm", 1, 1, 1, SeriesDescription="Mr Miller, sag T2 STIR")
    slice_of(in_folder / "a/2.dcm", 1, 2, 1, SeriesDescription="localiser of T12")
    (in_folder / "b").mkdir()
    shutil.copy(first, in_folder / "b/1.dcm")
    found = rows(Path("a"), Path("b"), header_columns=frozenset({"series_description"}))
    assert given(found, "image_id") == ["a/1.dcm", "a/2.dcm", "b/1.dcm"]
    assert given(found, "series_description") == ["T2", None, "T2"]
    assert len(set(found.units)) == 1
    assert "series_description" not in rows(Path("a")).table.column_names
