"""The RSNA pneumonia reader on a hand-written folder in the competition's layout."""

import pytest

from embedstore.datasets.rsna_pneumonia import RsnaPneumonia
from embedstore.errors import DataError
from embedstore.testing import check_reader

LABELS = """patientId,x,y,width,height,Target
p1,,,,,0
p2,264.0,152.0,213.0,379.0,1
p2,562.0,152.0,256.0,453.0,1
p3,,,,,0
"""
DETAILS = """patientId,class
p1,No Lung Opacity / Not Normal
p2,Lung Opacity
p2,Lung Opacity
p3,Normal
"""


@pytest.fixture
def tree(tmp_path):
    for folder, names in (("train", "p1 p2 p3"), ("test", "p9 p8")):
        (tmp_path / f"stage_2_{folder}_images").mkdir()
        for name in names.split():
            (tmp_path / f"stage_2_{folder}_images" / f"{name}.dcm").touch()
    (tmp_path / "stage_2_train_labels.csv").write_text(LABELS)
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(DETAILS)
    return tmp_path


def test_an_image_with_two_boxes_is_one_record_and_two_rows_of_boxes(tree):
    collection = check_reader(RsnaPneumonia(), tree, knows_patients=True)
    assert collection.manifest.column("patient_id") == ["p1", "p2", "p3", "p8", "p9"]
    assert collection.manifest.column("split") == [None, None, None, "test", "test"]
    assert set(collection.manifest.column("modality")) == {"CR"}
    assert collection.tables["boxes"].to_pylist() == [
        {"image_id": "stage_2_train_images/p2.dcm", "x": 264.0, "y": 152.0, "width": 213.0, "height": 379.0},
        {"image_id": "stage_2_train_images/p2.dcm", "x": 562.0, "y": 152.0, "width": 256.0, "height": 453.0},
    ]
    assert collection.summary["images with opacity"] == 1


def test_opacity_and_detail_are_image_tasks(tree):
    opacity, detail = RsnaPneumonia().read(tree).tasks
    assert (opacity.name, opacity.unit, opacity.classes) == ("opacity", "image", ("no opacity", "opacity"))
    assert (opacity.positive, detail.positive, detail.ordered) == ("opacity", "Lung Opacity", False)
    assert opacity.labels.column("opacity").to_pylist() == ["no opacity", "opacity", "no opacity"]
    assert detail.labels.to_pylist()[1] == {
        "unit_id": "stage_2_train_images/p2.dcm",
        "detail": "Lung Opacity",
    }
    assert detail.labels.column("detail").to_pylist()[::2] == ["No Lung Opacity / Not Normal", "Normal"]


def test_without_the_detailed_table_there_is_one_task(tree):
    (tree / "stage_2_detailed_class_info.csv").unlink()
    assert [task.name for task in RsnaPneumonia().read(tree).tasks] == ["opacity"]


def test_a_missing_file_stays_a_record_and_is_counted(tree):
    (tree / "stage_2_train_images/p3.dcm").unlink()
    collection = check_reader(RsnaPneumonia(), tree, knows_patients=True)
    assert collection.summary["absent"] == "1 of 5 files, such as stage_2_train_images/p3.dcm"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p4,,,,,1", r"line 6: Target must be 1 with a box or 0 without"),
        ("p4,1,2,3,4,0", r"line 6: Target must be 1 with a box or 0 without"),
        ("p4,,,,,2", r"line 6: Target must be .*found Target '2'"),
        ("p1,1,2,3,4,1", r"line 6: Target 1 of p1 contradicts line 2"),
        ("../p4,,,,,0", r"line 6: patientId must be the name of an image"),
        ("p4,,,,0", r"line 6: 6 columns expected"),
    ],
)
def test_a_wrong_label_row_is_refused_with_its_line(tree, row, message):
    (tree / "stage_2_train_labels.csv").write_text(LABELS + row + "\n")
    with pytest.raises(DataError, match=message):
        RsnaPneumonia().read(tree)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p3,Healthy", r"line 6: class must be one of .*found 'Healthy'"),
        ("p7,Normal", r"line 6: patient p7 has no row"),
        ("p1,Normal", r"line 6: class 'Normal' of p1 contradicts"),
        ("p3,Lung Opacity", r"line 6: class 'Lung Opacity' of p3 contradicts"),
    ],
)
def test_a_wrong_detail_row_is_refused_with_its_line(tree, row, message):
    (tree / "stage_2_detailed_class_info.csv").write_text(DETAILS + row + "\n")
    with pytest.raises(DataError, match=message):
        RsnaPneumonia().read(tree)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected stage_2_train_labels.csv .*found an empty folder"):
        RsnaPneumonia().read(tmp_path)
