"""The RSNA lumbar reader on its phantom: the format, the labels, the geometry, and what may be wrong."""

import csv
import shutil
from collections import Counter

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import EnhancedMRImageStorage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from embedstore.datasets.rsna_lumbar import RsnaLumbar
from embedstore.encoders.hog import HogEncoder
from embedstore.errors import DataError, UsageError
from embedstore.lumbar.levels import CLASSES, TARGETS
from embedstore.phantoms import lumbar
from embedstore.phantoms.lumbar import FOLDER, write_phantom_lumbar
from embedstore.testing import check_reader
from tests.dicom_objects import SAGITTAL, enhanced, group, save

STUDIES = 10


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom_lumbar(tmp_path_factory.mktemp("lumbar"), studies=STUDIES, seed=0)


@pytest.fixture(scope="module")
def collection(phantom):
    return check_reader(RsnaLumbar(), phantom.root, knows_patients=True)


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory):
    return write_phantom_lumbar(tmp_path_factory.mktemp("two"), studies=2, seed=0).root


@pytest.fixture
def small(two_studies, tmp_path):
    """Two studies of the phantom, to be damaged."""
    return shutil.copytree(two_studies, tmp_path / "small")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def headers(phantom):
    found = {}
    for path in phantom.root.rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        found[path.relative_to(phantom.root).as_posix()] = dataset
    return found


def test_every_slice_of_the_tree_is_a_record(collection, phantom):
    on_disk = {path.relative_to(phantom.root).as_posix() for path in phantom.root.rglob("*.dcm")}
    assert set(collection.manifest.column("path")) == on_disk
    assert len(on_disk) == phantom.images
    assert set(collection.manifest.column("modality")) == {"MR"}
    assert None not in collection.manifest.column("series_id")


def test_frames_of_an_enhanced_file_are_slices_of_its_series(small):
    path = min((small / "train_images").glob("*/*/*.dcm"))
    for other in path.parent.glob("*.dcm"):
        other.unlink()
    own = [group(position=(x, 0, 0)) for x in (8, 4, 0)]
    shared = group(orientation=SAGITTAL, spacing=(1, 1), thickness=4)
    save(enhanced(EnhancedMRImageStorage, "MR", shared, own), path)
    manifest = check_reader(RsnaLumbar(), small, knows_patients=True).manifest
    name = path.relative_to(small).as_posix()
    rows = [row for row in manifest.table.to_pylist() if row["path"] == name]
    assert [row["image_id"] for row in rows] == [name, f"{name}#1", f"{name}#2"]
    assert [(row["plane"], row["slice_index"], row["position_mm"]) for row in rows] == [
        ("sagittal", 2, 8),
        ("sagittal", 1, 4),
        ("sagittal", 0, 0),
    ]


def test_labels_are_those_of_the_table_with_missing_cells(collection, phantom):
    (task,) = collection.tasks
    assert (task.name, task.unit, task.targets) == ("lumbar-severity", "study", TARGETS)
    assert (task.classes, task.ordered, task.positive) == (
        ("Normal/Mild", "Moderate", "Severe"),
        True,
        "Severe",
    )
    assert (task.classes, task.class_weights) == (CLASSES, (1.0, 2.0, 4.0))
    rows = table(phantom.root / "train.csv")
    assert len(rows) == STUDIES
    assert len(rows[0]) == 26
    for row, labels in zip(rows, task.labels.to_pylist(), strict=True):
        assert labels["unit_id"] == row["study_id"]
        assert [labels[target] for target in TARGETS] == [row[target] or None for target in TARGETS]
    assert any(task.labels.column(target).null_count for target in TARGETS)


def test_targets_are_named_as_in_the_competition():
    assert len(TARGETS) == 25
    assert "right_neural_foraminal_narrowing_l5_s1" in TARGETS
    assert "spinal_canal_stenosis_l1_l2" in TARGETS


def test_series_descriptions_and_planes_agree(collection):
    columns = [collection.manifest.column(name) for name in ("series_description", "plane")]
    found = Counter(zip(*columns, strict=True))
    assert {("Sagittal T1", "sagittal"), ("Sagittal T2/STIR", "sagittal"), ("Axial T2", "axial")} <= set(
        found
    )
    assert not [pair for pair in found if pair[0] and pair[0].split()[0].lower() != pair[1]]


def test_the_phantom_has_what_makes_the_real_set_hard(collection, phantom):
    assert collection.summary["studies with duplicate series"] >= 1
    assert collection.summary["series with several stacks"] >= 3
    assert "without description 1" in collection.summary["series by description"]
    syntaxes = {dataset.file_meta.TransferSyntaxUID.name for dataset in headers(phantom).values()}
    assert len(syntaxes) == 4
    rising = Counter()
    manifest = collection.manifest
    rows = zip(
        *(manifest.column(n) for n in ("series_id", "stack", "slice_index", "instance_number")), strict=True
    )
    stacks = {}
    for series, stack, index, number in rows:
        stacks.setdefault((series, stack), []).append((index, number))
    for places in stacks.values():
        numbers = [number for _, number in sorted(places)]
        rising[numbers == sorted(numbers)] += 1
    assert set(rising) == {True, False}


def test_positions_follow_the_slice_normal_of_the_headers(collection, phantom):
    found = headers(phantom)
    manifest = collection.manifest
    names = ("path", "position_mm", "left_right_mm", "plane")
    for path, position, left_right, plane in zip(*(manifest.column(name) for name in names), strict=True):
        dataset = found[path]
        row, column = np.reshape(dataset.ImageOrientationPatient, (2, 3)).astype(float)
        normal = np.cross(row, column)
        normal *= np.sign(normal[np.argmax(np.abs(normal))])
        corner = np.array(dataset.ImagePositionPatient, float)
        assert position == pytest.approx(corner @ normal, abs=0.02)
        half = (dataset.Rows - 1) / 2 * float(dataset.PixelSpacing[0])
        assert left_right == pytest.approx((corner + half * (row + column))[0], abs=0.01)
        assert plane == ("axial" if abs(normal[2]) > 0.7 else "sagittal")


def test_coordinates_are_kept_and_point_into_their_image(collection, phantom):
    coordinates = collection.tables["coordinates"].to_pylist()
    assert len(coordinates) == len(table(phantom.root / "train_label_coordinates.csv"))
    for point in coordinates:
        place = (point["study_id"], point["series_id"], point["instance_number"])
        assert point["image_id"] == "train_images/{}/{}/{}.dcm".format(*place)
        assert 0 < point["x"] < 192
        assert 0 < point["y"] < 192


def test_left_is_marked_on_the_patients_left(collection):
    left_right = dict(
        zip(collection.manifest.column("path"), collection.manifest.column("left_right_mm"), strict=True)
    )
    for point in collection.tables["coordinates"].to_pylist():
        if "Foraminal" in point["condition"]:
            assert (left_right[point["image_id"]] > 0) == point["condition"].startswith("Left")


def test_the_test_tree_has_images_and_no_labels(collection, phantom):
    splits = dict(
        zip(collection.manifest.column("study_id"), collection.manifest.column("split"), strict=True)
    )
    (unlabelled,) = [study for study, split in splits.items() if split == "test"]
    assert unlabelled not in collection.tasks[0].labels.column("unit_id").to_pylist()
    rows = table(phantom.root / "sample_submission.csv")
    assert [row["row_id"] for row in rows] == [f"{unlabelled}_{target}" for target in sorted(TARGETS)]


def test_class_shares_are_near_those_of_the_competition():
    labels = np.concatenate([lumbar._plan_study(index, 0, "train").labels.ravel() for index in range(400)])
    np.testing.assert_allclose(np.bincount(labels) / len(labels), (0.774, 0.163, 0.063), atol=0.02)


def test_the_same_seed_gives_the_same_bytes_and_a_larger_tree_begins_with_the_smaller(phantom, small):
    for path in small.rglob("*.dcm"):
        assert path.read_bytes() == (phantom.root / path.relative_to(small)).read_bytes()
    train = (small / "train.csv").read_text()
    assert (phantom.root / "train.csv").read_text().startswith(train)


def test_pixels_do_not_depend_on_the_syntax_they_are_stored_in(phantom):
    for path, dataset in list(headers(phantom).items())[::40]:
        pixels = pydicom.dcmread(phantom.root / path).pixel_array
        assert pixels.shape == (dataset.Rows, dataset.Columns)
        assert 100 < np.percentile(pixels, 99) < 2000


def crop(path, x, y, half=18):
    pixels = pydicom.dcmread(path).pixel_array.astype(float)
    low, high = np.percentile(pixels, (1, 99))
    grey = np.clip((pixels - low) / (high - low), 0, 1) * 255
    box = (x - half, y - half, x + half, y + half)
    picture = Image.fromarray(grey.astype(np.uint8)).crop(tuple(round(edge) for edge in box))
    return np.asarray(picture.resize((444, 444), Image.Resampling.BILINEAR))


def test_narrowing_can_be_learnt_from_hog_crops_but_not_perfectly(collection, phantom):
    labels = {row["unit_id"]: row for row in collection.tasks[0].labels.to_pylist()}
    crops, worse, studies = [], [], []
    for point in collection.tables["coordinates"].to_pylist():
        if "Foraminal" in point["condition"]:
            target = f"{point['condition']} {point['level']}".lower().replace(" ", "_").replace("/", "_")
            crops.append(crop(phantom.root / point["image_id"], point["x"], point["y"]))
            worse.append(labels[point["study_id"]][target] != "Normal/Mild")
            studies.append(point["study_id"])
    X, y = HogEncoder(device="cpu").encode(np.stack(crops)), np.array(worse)
    fold = np.unique(studies, return_inverse=True)[1] % 2
    scores = np.empty(len(y))
    for held in (0, 1):
        model = LogisticRegression(max_iter=300).fit(X[fold != held], y[fold != held])
        scores[fold == held] = model.predict_proba(X[fold == held])[:, 1]
    assert 0.75 < roc_auc_score(y, scores) < 0.999


def test_a_copy_without_tables_is_read_without_tasks(small):
    for path in small.glob("*.csv"):
        path.unlink()
    collection = check_reader(RsnaLumbar(), small, knows_patients=True)
    assert collection.tasks == ()
    assert dict(collection.tables) == {}
    assert set(collection.manifest.column("series_description")) == {None}


def test_a_labelled_study_without_images_is_counted(small):
    study = next(path for path in sorted((small / "train_images").iterdir()))
    shutil.rmtree(study)
    collection = check_reader(RsnaLumbar(), small, knows_patients=True)
    assert collection.summary["labelled studies without images"] == 1
    assert collection.summary["described series without images"] >= 3
    assert collection.summary["coordinates without image"] > 0
    assert study.name not in collection.tasks[0].labels.column("unit_id").to_pylist()


def test_a_broken_file_stays_a_record_with_its_problem(small):
    path = next(iter(sorted(small.rglob("*.dcm"))))
    path.write_bytes(path.read_bytes()[:200])
    other = sorted(small.rglob("*.dcm"))[1]
    other.write_bytes(b"not a picture")
    (path.parent / "._1.dcm").write_bytes(b"fork")
    manifest = check_reader(RsnaLumbar(), small, knows_patients=True).manifest
    problems = dict(zip(manifest.column("path"), manifest.column("problem"), strict=True))
    assert problems[path.relative_to(small).as_posix()]
    assert problems[other.relative_to(small).as_posix()] == "not a DICOM image"
    assert sum(problem is not None for problem in problems.values()) == 2
    assert not [name for name in problems if "._" in name]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train.csv", "Normal/Mild", "Mild", r"train.csv: line \d: .* must be Normal/Mild, .*found 'Mild'"),
        (
            "train.csv",
            "study_id",
            "study",
            r"train.csv: must have the columns study_id, .*'study_id' is absent",
        ),
        ("train.csv", "4004370", "4003253", r"line 3: study_id must be given once; found 4003253"),
        ("train_series_descriptions.csv", "Axial T2", "Axial", r"line \d: series_description must be"),
        ("train_label_coordinates.csv", "9", "nine", r"line \d+: .* must be a number"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(small, name, old, new, message):
    path = small / name
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        RsnaLumbar().read(small)


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "train.csv").touch()
    with pytest.raises(DataError, match=r"expected train_images/.*found 1 entries \('train.csv'\)"):
        RsnaLumbar().read(tmp_path)


def test_the_phantom_refuses_another_folder_and_impossible_sizes(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "train.csv").write_text("precious")
    with pytest.raises(DataError, match="never written over"):
        write_phantom_lumbar(tmp_path, studies=1)
    with pytest.raises(UsageError, match="at least 1"):
        write_phantom_lumbar(tmp_path, studies=0)
