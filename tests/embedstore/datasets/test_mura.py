"""The MURA reader on phantom trees: complete, partial, damaged and mistaken ones."""

import shutil
from collections import Counter

import pytest

from embedstore.datasets import mura
from embedstore.datasets.mura import Mura
from embedstore.errors import DataError
from embedstore.phantoms.mura import write_phantom_mura
from embedstore.testing import check_reader


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_phantom_mura(tmp_path_factory.mktemp("mura"), patients=26, seed=3)


@pytest.fixture
def tree(pristine, tmp_path):
    folder = tmp_path / "MURA-v1.1"
    shutil.copytree(pristine.root, folder)
    return folder


def append(path, line):
    path.write_text(path.read_text() + line)


def test_the_reader_obeys_the_contract(tree):
    check_reader(Mura(), tree, knows_patients=True)


def test_the_folder_and_its_parent_give_the_same_collection(tree):
    inside, above = Mura().read(tree), Mura().read(tree.parent)
    assert inside.manifest.table.equals(above.manifest.table)
    assert inside.root == above.root == tree


def test_every_listed_image_is_a_record_with_its_ids(tree, pristine):
    collection = Mura().read(tree)
    listed = [
        line.removeprefix("MURA-v1.1/")
        for split in ("train", "valid")
        for line in (tree / f"{split}_image_paths.csv").read_text().splitlines()
    ]
    assert collection.manifest.column("image_id") == collection.manifest.column("path") == listed
    assert len(listed) == pristine.images
    row = collection.manifest.table.slice(0, 1).to_pylist()[0]
    split, anatomy, patient, study, _ = row["path"].split("/")
    assert (row["split"], row["anatomy"], row["patient_id"]) == (split, anatomy, patient)
    assert row["study_id"] == f"{split}/{anatomy}/{patient}/{study}"
    assert (row["modality"], row["frame"]) == ("CR", 0)


def test_the_task_is_the_study_label_scored_by_kappa(tree, pristine):
    (task,) = Mura().read(tree).tasks
    assert (task.name, task.unit, task.classes) == ("abnormal", "study", ("normal", "abnormal"))
    assert (task.positive, task.ordered) == ("abnormal", False)
    assert (task.primary_metric, task.pooling, task.subgroups) == ("kappa", "mean-probability", ("anatomy",))
    for row in task.labels.to_pylist():
        assert row["abnormal"] == ("abnormal" if row["unit_id"].endswith("_positive") else "normal")
    counts = Counter(task.labels.column("abnormal").to_pylist())
    assert counts["abnormal"] == pristine.abnormal_studies
    assert counts.total() == pristine.studies


def test_a_tree_without_tables_gives_the_same_records_from_its_folders(tree):
    listed = Mura().read(tree)
    for table in tree.glob("*.csv"):
        table.unlink()
    scanned = check_reader(Mura(), tree, knows_patients=True)
    assert sorted(scanned.manifest.column("image_id")) == sorted(listed.manifest.column("image_id"))
    assert scanned.tasks[0].labels.sort_by("unit_id").equals(listed.tasks[0].labels.sort_by("unit_id"))


def test_a_missing_file_stays_a_record_and_is_counted(tree):
    path = Mura().read(tree).manifest.column("path")[4]
    (tree / path).unlink()
    collection = check_reader(Mura(), tree, knows_patients=True)
    assert path in collection.manifest.column("path")
    assert collection.summary["absent"].startswith("1 of ")
    assert path in collection.summary["absent"]


def test_a_copy_without_the_valid_split_says_what_is_absent(tree):
    shutil.rmtree(tree / "valid")
    for table in tree.glob("valid*.csv"):
        table.unlink()
    (tree / "PHANTOM.txt").unlink()
    summary = check_reader(Mura(), tree, knows_patients=True).summary
    assert "images in valid" not in summary
    assert "valid lists 0 of 3,197 images, 0 of 661 normal" in summary["compared with MURA v1.1"]


def test_complete_counts_are_recognised(tree, monkeypatch):
    (tree / "PHANTOM.txt").unlink()
    complete = {}
    for split in ("train", "valid"):
        studies = (tree / f"{split}_labeled_studies.csv").read_text().splitlines()
        images = len((tree / f"{split}_image_paths.csv").read_text().splitlines())
        abnormal = sum(line.endswith(",1") for line in studies)
        complete[split] = mura.SplitCounts(images, len(studies) - abnormal, abnormal)
    monkeypatch.setattr(mura, "COMPLETE", complete)
    assert Mura().read(tree).summary["compared with MURA v1.1"] == "same counts"


def test_the_published_counts_add_up():
    train, valid = mura.COMPLETE["train"], mura.COMPLETE["valid"]
    assert (train.images + valid.images, train.normal + train.abnormal, valid.normal + valid.abnormal) == (
        40005,
        13457,
        1199,
    )


def test_resource_forks_in_a_table_are_skipped(tree):
    images = len(Mura().read(tree).manifest)
    append(
        tree / "train_image_paths.csv", "MURA-v1.1/train/XR_HAND/patient00001/study1_negative/._image1.png\n"
    )
    assert len(Mura().read(tree).manifest) == images


def test_tables_with_windows_line_ends_and_a_byte_order_mark_are_read(tree):
    expected = Mura().read(tree).manifest.table
    for table in tree.glob("*.csv"):
        table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert Mura().read(tree).manifest.table.equals(expected)


def test_a_label_that_contradicts_its_folder_is_refused_with_its_line(tree):
    table = tree / "train_labeled_studies.csv"
    lines = table.read_text().splitlines()
    lines[2] = lines[2][:-1] + str(1 - int(lines[2][-1]))
    table.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"train_labeled_studies.csv: line 3: label [01] .*contradicts"):
        Mura().read(tree)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("train_image_paths.csv", "MURA-v1.1/train/XR_HAND/patient00001/image1.png"),
        ("train_image_paths.csv", "MURA-v1.1/train/XR_HAND/../../../etc/passwd"),
        ("train_image_paths.csv", "MURA-v1.1/valid/XR_HAND/patient00001/study1_negative/image1.png"),
        ("valid_labeled_studies.csv", "MURA-v1.1/valid/XR_HAND/patient00001/study1_negative/,2"),
        ("valid_labeled_studies.csv", "MURA-v1.1/valid/XR_HAND/patient00001/study1_negative/"),
        ("valid_labeled_studies.csv", "study,label"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line_and_content(tree, table, line):
    number = len((tree / table).read_text().splitlines()) + 1
    append(tree / table, line + "\n")
    with pytest.raises(DataError, match=f"{table}: line {number}: must be MURA-v1.1/.*found"):
        Mura().read(tree)


def test_a_doubled_row_is_refused_with_both_lines(tree):
    table = tree / "valid_image_paths.csv"
    lines = table.read_text().splitlines()
    append(table, lines[1] + "\n")
    with pytest.raises(DataError, match=rf"line {len(lines) + 1}: .*stands on line 2 already"):
        Mura().read(tree)


def test_a_table_that_is_not_text_is_refused(tree):
    (tree / "train_image_paths.csv").write_bytes(b"\xff\xfe\x00MURA")
    with pytest.raises(DataError, match=r"train_image_paths.csv: must be a text table"):
        Mura().read(tree)


def test_another_folder_is_refused_in_one_line_that_says_what_is_there(tmp_path):
    for name in ("notes.txt", "photo.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(
        DataError, match=r"expected MURA v1.1 .*found 2 entries \('notes.txt', 'photo.jpg'\)"
    ) as caught:
        Mura().read(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_a_file_and_a_wrong_name_are_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "archive.zip").write_bytes(b"12345")
    with pytest.raises(DataError, match="found an empty folder"):
        Mura().read(tmp_path / "empty")
    with pytest.raises(DataError, match="found a file of 5 bytes"):
        Mura().read(tmp_path / "archive.zip")
    with pytest.raises(DataError, match="found nothing of that name"):
        Mura().read(tmp_path / "MURA")
