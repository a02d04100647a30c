"""A data set's crops as records: what is counted, what is refused, and studies that lack what others have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from embedstore.crops.crop_collection import COLUMNS, crops_of_headers, points_for_crops, with_crops
from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.datasets.mura import Mura
from embedstore.datasets.rsna_lumbar import RsnaLumbar
from embedstore.datasets.table import Table
from embedstore.errors import DataError, UsageError
from embedstore.headers.dicom_scan import scan_headers
from embedstore.lumbar.crop_rule import CropRule
from embedstore.phantoms.mura import write_phantom_mura
from tests.lumbar_studies import (
    AXIAL_AXES,
    DIGEST,
    PLACES,
    Series,
    blobs,
    level_points,
    usual_points,
    usual_series,
    write_study,
)

SIGNAL = blobs([(0, 8, 20)])
SMALL = {"shape": (48, 40)}


def with_axial(*more, **series):
    """Return the usual three series with others in place of the axial one."""
    return [*usual_series(**SMALL, **series)[:2], *more]


def axial(name, places, **more):
    return Series(name, "Axial T2", AXIAL_AXES, places, shape=(48, 41), **more)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Seven studies, of which only the first is complete."""
    root = tmp_path_factory.mktemp("odd")
    write_study(root, "1", usual_series(**SMALL), SIGNAL)
    write_study(root, "2", usual_series(**SMALL)[1:], SIGNAL)
    tilt = np.radians(20.0)
    level = [(0.0, 4.0, z) for z in (16.0, 20.0, 24.0)]
    tilted = replace(axial("104", []), axes=((1, 0, 0), (0, np.cos(tilt), -np.sin(tilt))))
    # One series of two stacks, and a second series of the lower level alone.
    write_study(root, "3", with_axial(axial("103", level)), SIGNAL)
    write_study(root, "3", [replace(tilted, middles_mm=[(0, 8, z) for z in (-18, -14, -10)])], SIGNAL)
    _join(root, "3", "103", "104")
    write_study(root, "3", [axial("105", [(0.0, 4.0, -13.5)])], SIGNAL)
    three = [replace(entry, middles_mm=entry.middles_mm[3:6]) for entry in usual_series(**SMALL)]
    write_study(root, "4", three, SIGNAL)
    no_plane = usual_series(**SMALL)
    no_plane[1] = replace(no_plane[1], elements={"ImageOrientationPatient": None})
    write_study(root, "5", no_plane, SIGNAL)
    write_study(root, "6", [replace(entry, description="") for entry in usual_series(**SMALL)], SIGNAL)
    write_study(root, "7", usual_series(**SMALL), SIGNAL)
    return RsnaLumbar().read(root)


def _join(root, study, series, other):
    """Make two series one, as scanners do with stacks."""
    for file in sorted((root / "train_images" / study / other).iterdir()):
        file.rename(root / "train_images" / study / series / f"{int(file.stem) + 100}.dcm")
    (root / "train_images" / study / other).rmdir()
    table = root / "train_series_descriptions.csv"
    lines = [line for line in table.read_text().splitlines() if not line.startswith(f"{study},{other},")]
    table.write_text("\n".join(lines) + "\n")


def points_of(*studies, **more):
    places = {(study, *name): place for study in studies for name, place in PLACES.items()}
    return level_points(places | more.pop("further", {}), **more)


def rows_of(collection, study):
    return [row for row in collection.manifest.table.to_pylist() if row["study_id"] == study]


@pytest.fixture(scope="module")
def cropped(odd):
    six = {("7", "canal", "l5_l6"): (0.0, 9.0, -20.0), ("9", "canal", "l1_l2"): (0.0, 0.0, 0.0)}
    return with_crops(odd, points_of("1", "2", "3", "4", "5", "6", further=six), neighbours=0)


def test_every_crop_says_what_it_is(cropped):
    row = next(
        row
        for row in rows_of(cropped, "1")
        if row["crop"] == "axial_t2" and row["side"] == "right" and row["level"] == "l3_l4"
    )
    assert row["image_id"] == "train_images/1/103/2.dcm#crop=axial_t2,l3_l4,right"
    assert row["path"] == "train_images/1/103/2.dcm"
    said = {name: row[name] for name in COLUMNS if not name.startswith("crop_")}
    assert said == {
        "level": "l3_l4",
        "side": "right",
        "crop": "axial_t2",
        "structure": "right_subarticular",
        "offset": 0,
        "mirrored": True,
        "distance_mm": 0.6,
        "points": "localised",
        "level_confidence": 0.875,
        "level_unsure": False,
    }
    assert (row["plane"], row["series_description"]) == ("axial", "Axial T2")
    assert cropped.whole is not None
    assert len(cropped.whole) == len(cropped.images) == 145
    assert cropped.crop == CropRule(50.0, 0, "localised", DIGEST).to_json()


def test_a_study_without_one_of_the_series_lacks_its_crops(cropped):
    assert {row["crop"] for row in rows_of(cropped, "2")} == {"canal_sagittal_t2", "axial_t2"}
    # Study 6 has neither words nor times.
    assert cropped.summary["absent, studies without sagittal T1"] == 2
    assert cropped.summary["absent, studies without axial T2"] == 1
    assert cropped.summary["absent, slices neither T1 nor T2"] == 24
    assert not rows_of(cropped, "6")


def test_stacks_and_axial_series_each_show_the_levels_that_they_pass_through(cropped):
    shown = {
        (row["level"], row["side"], row["path"]) for row in rows_of(cropped, "3") if row["crop"] == "axial_t2"
    }
    folder = "train_images/3/103"
    assert shown == {
        ("l3_l4", "left", f"{folder}/2.dcm"),
        ("l3_l4", "right", f"{folder}/2.dcm"),
        ("l4_l5", "left", f"{folder}/102.dcm"),
        ("l4_l5", "right", f"{folder}/102.dcm"),
        ("l4_l5", "left", "train_images/3/105/1.dcm"),
        ("l4_l5", "right", "train_images/3/105/1.dcm"),
    }
    assert cropped.summary["absent, axial_t2: no slice near enough"] >= 2  # L3/L4 in series 105


def test_three_slices_show_what_they_reach(cropped):
    kinds = {(row["crop"], row["level"]) for row in rows_of(cropped, "4")}
    # Sagittal at -5, 0 and 5 mm: no foramen; axial at -18, -14 and -10 mm: L4/L5 alone.
    assert kinds == {("canal_sagittal_t2", "l3_l4"), ("canal_sagittal_t2", "l4_l5"), ("axial_t2", "l4_l5")}
    assert cropped.summary["absent, foramen_sagittal_t1: no slice near enough"] == 4


def test_a_series_without_orientation_has_no_crops(cropped):
    assert {row["crop"] for row in rows_of(cropped, "5")} == {"foramen_sagittal_t1", "axial_t2"}
    assert cropped.summary["absent, slices without a place in the patient"] == 9
    assert cropped.summary["absent, studies without sagittal T2"] == 2


def test_a_sixth_lumbar_vertebra_has_crops_under_its_own_names(cropped):
    assert {(row["crop"], row["level"]) for row in rows_of(cropped, "7")} == {
        ("canal_sagittal_t2", "l5_l6"),
        ("axial_t2", "l5_l6"),
    }


def test_points_of_studies_that_are_not_there_are_counted(cropped):
    assert cropped.summary["absent, level points of unknown studies"] == 1
    assert "absent, studies without level points" not in cropped.summary


def test_points_of_another_data_set_are_refused_in_one_line(odd):
    with pytest.raises(DataError, match="level points of unknown studies 8") as refusal:
        with_crops(odd, points_of("4711"))
    assert "\n" not in str(refusal.value)
    with pytest.raises(DataError, match="no crop can be cut around 0 localised"):
        with_crops(odd, level_points({}))


def test_a_point_beside_every_picture_gives_no_crop(odd):
    points = points_of("1", further={("1", "canal", "l5_s1"): (0.0, 90.0, 0.0)})
    found = with_crops(odd, points, neighbours=0)
    assert found.summary["absent, canal_sagittal_t2: beside the picture"] == 1
    assert "l5_s1" not in found.manifest.column("level")


def test_unsure_studies_say_so_in_every_crop(odd):
    found = with_crops(odd, points_of("1", unsure=True), neighbours=0)
    assert set(found.manifest.column("level_unsure")) == {True}
    assert found.summary["crops of studies whose levels are unsure"] == len(found.manifest)
    assert found.summary["level points"] == f"localised by {DIGEST[:12]}"


COORDINATES = [
    "study_id,series_id,instance_number,condition,level,x,y",
    "1,102,5,Spinal Canal Stenosis,L3/L4,20.5,10.25",
    "1,102,99,Spinal Canal Stenosis,L4/L5,20,30",
    "1,103,2,Left Subarticular Stenosis,L3/L4,41.0,20",
    "1,101,8,Left Neural Foraminal Narrowing,L3/L4,20,9",
]


def test_true_coordinates_make_crops_that_are_called_oracle(odd, tmp_path):
    write_study(tmp_path, "1", usual_series(**SMALL), SIGNAL)
    (tmp_path / "train_label_coordinates.csv").write_text("\n".join(COORDINATES) + "\n")
    found = with_crops(RsnaLumbar().read(tmp_path), "oracle", neighbours=0)
    rows = found.manifest.table.to_pylist()
    assert {row["points"] for row in rows} == {"oracle"}
    assert {row["level_confidence"] for row in rows} == {None}
    assert found.summary["level points"] == "oracle coordinates, which no new study has"
    # An instance that does not exist, and a column beyond the last of 41.
    assert found.summary["level points left out, image not in the store"] == 1
    assert found.summary["level points left out, outside the image"] == 1
    (canal,) = [row for row in rows if row["crop"] == "canal_sagittal_t2"]
    assert canal["path"].endswith("/102/5.dcm")
    # 50 mm are 40 columns of 1.25 mm and 33.33 rows of 1.5 mm; the centre of pixel 0 is half a pixel from its edge.
    assert canal["crop_left_px"] == pytest.approx(21.0 - 20.0)
    assert canal["crop_top_px"] == pytest.approx(10.75 - 50 / 3, abs=1e-4)
    assert found.crop == CropRule(50.0, 0, "oracle").to_json()
    with pytest.raises(UsageError, match="needs a table of coordinates, which data set 'rsna-lumbar'"):
        with_crops(odd, "oracle")


def test_a_folder_that_is_no_run_of_a_localiser_is_refused(odd, tmp_path):
    with pytest.raises(UsageError, match="oracle or the folder of a localiser's run, which"):
        points_for_crops(tmp_path / "none", odd)
    with pytest.raises(UsageError, match="a folder without it"):
        points_for_crops(tmp_path, odd)
    (tmp_path / "levels.parquet").write_text("no table")
    with pytest.raises(DataError, match="must be Parquet"):
        points_for_crops(tmp_path, odd)
    usual_points("1", origin="oracle").save(tmp_path / "levels.parquet")
    with pytest.raises(UsageError, match="points that a localiser found; found oracle"):
        points_for_crops(tmp_path, odd)
    usual_points("1").save(tmp_path / "levels.parquet")
    assert points_for_crops(tmp_path, odd).digest == DIGEST


def test_other_data_sets_are_refused_in_one_line(tmp_path):
    mura = Mura().read(write_phantom_mura(tmp_path, patients=4).root)
    with pytest.raises(UsageError, match="data set 'mura'"):
        with_crops(mura, "oracle")
    with pytest.raises(DataError, match="slices without a place in the patient"):
        with_crops(mura, usual_points("1"))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A folder of DICOM that says T1 and T2 by times alone."""
    root = tmp_path_factory.mktemp("hospital")
    times = [("12", "600"), ("100", "3500"), ("100", "3500")]
    series = [
        replace(entry, elements={"EchoTime": echo, "RepetitionTime": repetition})
        for entry, (echo, repetition) in zip(usual_series(**SMALL), times, strict=True)
    ]
    write_study(root, "1", series, SIGNAL)
    return root / "train_images" / "1"


def test_a_folder_of_dicom_is_cropped_under_pseudonyms(hospital, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"secret of sixteen bytes or more")
    whole = DicomFolder(key).read(hospital)
    (study,) = set(whole.manifest.column("study_id"))
    found = with_crops(whole, usual_points(study))
    assert len(found.manifest) == 30
    assert set(found.manifest.column("path")) == {None}
    assert set(found.manifest.paths) == set(found.manifest.column("image_id"))
    assert {record.path.split("/")[0] for record in found.manifest.records()} == {"101", "102", "103"}
    # The same from headers alone, as for one new study.
    paths = [str(path.relative_to(hospital)) for path in sorted(hospital.rglob("*.dcm"))]
    images = list(scan_headers(str(hospital), paths, key=key.read_bytes()))
    alone = crops_of_headers(images, usual_points("any name"), CropRule(), source=str(hospital))
    ignored = ("study_id", "image_id", "path", "patient_id", "series_id", "accession_id")

    def told(manifest):
        rows = manifest.table.drop_columns(ignored).to_pylist()
        return sorted(map(str, rows))

    assert told(alone) == told(found.manifest)
    assert set(alone.column("study_id")) == {"any name"}
    assert {record.crop for record in alone.records()} == {record.crop for record in found.manifest.records()}
    with pytest.raises(UsageError, match="one study; found a, b"):
        crops_of_headers(
            images,
            level_points({(name, "canal", "l1_l2"): (0, 0, 0) for name in "ab"}),
            CropRule(),
            source="x",
        )


def test_a_table_of_dicom_is_cropped_by_its_headers(hospital, tmp_path):
    lines = ["path,patient_id,study_id,series_id,grade,plane"]
    # One slice belongs to another study.
    names = [(str(path.relative_to(hospital)), path.parent.name) for path in hospital.rglob("*.dcm")]
    lines += [
        f"{path},p,{'t,103,2' if path == '103/6.dcm' else f's,{series},1'},any" for path, series in names
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    whole = Table(label="grade", unit="study", images_root=hospital).read(table)
    found = with_crops(whole, usual_points("s"))
    assert len(found.manifest) == 28
    assert found.summary["absent, studies without level points"] == 1
    assert [task.name for task in found.tasks] == ["grade"]
    assert set(found.manifest.column("plane")) == {"any"}
    # A task of whole images has no images here.
    by_image = replace(whole, tasks=[replace(whole.tasks[0], unit="image")])
    cropped = with_crops(by_image, usual_points("s"))
    assert cropped.tasks == ()
    assert cropped.summary["tasks left out, of whole images"] == "grade"


def test_a_column_of_the_same_name_is_refused(odd):
    table = odd.manifest.table.append_column("level", pa.array(["upper"] * len(odd.manifest)))
    with pytest.raises(DataError, match="has a column 'level' of its own"):
        with_crops(replace(odd, manifest=replace(odd.manifest, table=table)), usual_points("1"))


@pytest.mark.parametrize("size_mm", [0.0, 500.0])
def test_sizes_are_checked_before_anything_is_planned(odd, size_mm):
    with pytest.raises(UsageError, match="crop_mm"):
        with_crops(odd, usual_points("1"), size_mm=size_mm)
