"""Phantom MURA: its format, its repeatability and its difficulty."""

import csv
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from embedstore.encoders.hog import HogEncoder
from embedstore.errors import DataError, UsageError
from embedstore.phantoms.bones import ANATOMIES
from embedstore.phantoms.mura import write_phantom_mura


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    return write_phantom_mura(root, patients=39, seed=5)


def files_below(folder):
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def lines_of(path):
    return path.read_text().splitlines()


def test_tables_and_folders_have_the_format_of_mura(tree):
    for split in ("train", "valid"):
        images = lines_of(tree.root / f"{split}_image_paths.csv")
        studies = list(csv.reader(lines_of(tree.root / f"{split}_labeled_studies.csv")))
        pattern = rf"MURA-v1.1/{split}/XR_[A-Z]+/patient\d{{5}}/study\d_(positive|negative)"
        assert all(re.fullmatch(pattern + r"/image\d\.png", path) for path in images)
        assert all(re.fullmatch(pattern + "/", path) and label in "01" for path, label in studies)
        assert all(label == str(int("positive" in path)) for path, label in studies)
        assert {path.rpartition("/")[0] + "/" for path in images} == {path for path, _ in studies}
        on_disk = (tree.root / split).rglob("image*.png")
        assert {path.relative_to(tree.root.parent).as_posix() for path in on_disk} == set(images)
        assert {path.split("/")[2] for path in images} == set(ANATOMIES)


def test_no_patient_is_in_both_splits(tree):
    tables = [tree.root / f"{split}_image_paths.csv" for split in ("train", "valid")]
    patients = [{path.split("/")[3] for path in lines_of(table)} for table in tables]
    assert not patients[0] & patients[1]
    assert len(patients[0]) + len(patients[1]) == tree.patients == 39


def test_studies_and_images_vary_as_in_mura(tmp_path):
    root = write_phantom_mura(tmp_path, patients=60, seed=0).root
    paths = lines_of(root / "train_image_paths.csv") + lines_of(root / "valid_image_paths.csv")
    views = Counter(path.rpartition("/")[0] for path in paths)
    assert set(views.values()) == {1, 2, 3, 4}
    studies = Counter(study.split("/")[3] for study in views)
    assert max(studies.values()) == 2
    modes, sizes = set(), set()
    for path in root.rglob("image*.png"):
        with Image.open(path) as picture:
            modes.add(picture.mode)
            sizes.add(picture.size)
    assert modes == {"L", "RGB"}
    assert {max(size) for size in sizes} == {512}
    assert len(sizes) > 20
    assert list(root.rglob("._image*.png"))
    assert (root / ".DS_Store").is_file()
    assert "no patient" in (root / "PHANTOM.txt").read_text()


def test_counts_are_those_on_disk(tree):
    assert tree.images == len(list(tree.root.rglob("image*.png")))
    assert tree.studies == len(list(tree.root.rglob("study*")))
    assert tree.abnormal_studies == len(list(tree.root.rglob("study*_positive")))


def test_the_same_seed_gives_the_same_bytes_and_a_larger_tree_begins_with_the_smaller(tree, tmp_path):
    again = files_below(write_phantom_mura(tmp_path / "again", patients=39, seed=5).root)
    assert files_below(tree.root) == again
    smaller = write_phantom_mura(tmp_path / "smaller", patients=15, seed=5).root
    pictures = {path: content for path, content in files_below(smaller).items() if path.endswith(".png")}
    assert pictures.items() <= again.items()
    other = files_below(write_phantom_mura(tmp_path / "other", patients=15, seed=6).root)
    assert not {other[path] for path in other if path.endswith("/image1.png")} & set(again.values())


def test_writing_again_over_the_same_phantom_changes_nothing(tmp_path):
    first = files_below(write_phantom_mura(tmp_path, patients=3, seed=0).root)
    assert files_below(write_phantom_mura(tmp_path, patients=3, seed=0).root) == first


def test_another_tree_is_never_written_over(tmp_path):
    folder = tmp_path / "MURA-v1.1"
    folder.mkdir()
    (folder / "train_image_paths.csv").write_text("precious")
    with pytest.raises(DataError, match="never written over"):
        write_phantom_mura(tmp_path, patients=3, seed=0)
    assert [path.name for path in folder.iterdir()] == ["train_image_paths.csv"]


def test_an_impossible_number_of_patients_is_refused(tmp_path):
    with pytest.raises(UsageError, match="at least 1"):
        write_phantom_mura(tmp_path, patients=0, seed=0)


def squared(path):
    """Pad to a square and resize, by PIL alone."""
    with Image.open(path) as opened:
        picture = opened.convert("L")
    side = max(picture.size)
    frame = Image.new("L", (side, side))
    frame.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(frame.resize((444, 444), Image.Resampling.BILINEAR))


@pytest.mark.slow
def test_hog_and_logistic_regression_reach_a_study_auroc_between_080_and_095(tmp_path):
    root = write_phantom_mura(tmp_path, patients=220, seed=0).root
    paths = sorted(root.rglob("image*.png"))
    paths = [path for path in paths if not path.name.startswith("._")]
    X = HogEncoder(device="cpu").encode(np.stack([squared(path) for path in paths]))
    y = np.array([path.parent.name.endswith("positive") for path in paths])
    patients = [path.parts[-3] for path in paths]
    model = LogisticRegression(C=1.0, max_iter=500)
    with threadpool_limits(1):  # BLAS threads fight over busy cores: 30 times slower
        scores = cross_val_predict(model, X, y, groups=patients, cv=GroupKFold(5), method="predict_proba")
    studies, study_of_image = np.unique([str(path.parent) for path in paths], return_inverse=True)
    mean = np.bincount(study_of_image, scores[:, 1]) / np.bincount(study_of_image)
    truth = [study.endswith("positive") for study in studies]
    assert 0.80 < roc_auc_score(truth, mean) < 0.95
