from pathlib import Path

import pytest

from cli.main import run
from embedstore.datasets.label_table import read_label_task
from embedstore.errors import DataError
from embedstore.store.tasks import read_task
from tests.stores import make_store


def test_a_table_becomes_a_task_with_its_classes_sorted_as_numbers(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_id,grade,side\ns1,10,2\ns2,2,\ns3,,10\n")
    task = read_label_task(path, name="t", unit="study")
    assert task.targets == ("grade", "side")
    assert task.classes == ("2", "10")
    assert task.labels.to_pydict() == {
        "unit_id": ["s1", "s2", "s3"],
        "grade": ["10", "2", None],
        "side": ["2", None, "10"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,grade\na,1\n", "needs the column 'study_id'; found image_id, grade"),
        ("study_id\na\n", "needs a label column"),
        ("study_id,grade\na,1\na,2\n", "line 3: study_id 'a' is empty or stands twice"),
        ("study_id,grade\na,1\n,2\n", "line 3: study_id None is empty"),
        ("study_id,grade\na,1\nb,1\n", "two or more different classes"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_label_task(path, name="t", unit="study")


def test_label_adds_a_task_to_a_store_and_refuses_a_table_of_strangers(tmp_path, capsys):
    make_store(tmp_path / "s")
    Path("good.csv").write_text("study_id,abnormal\nstudy0,yes\nstudy1,no\nstudy999,no\n")
    assert run(["label", "s", "--name", "fracture", "--csv", "good.csv"]) == 0
    printed = capsys.readouterr()
    assert "2 in the store" in printed.out
    assert "1 of 3 study ids are not in store s: 'study999', for example; the store's look like 'study0'" in (
        printed.err
    )
    assert read_task(tmp_path / "s", "fracture").classes == ("no", "yes")
    Path("bad.csv").write_text("study_id,abnormal\nx,yes\ny,no\n")
    assert run(["label", "s", "--name", "other", "--csv", "bad.csv"]) == 1
    assert "none of its 2 study ids is in store" in capsys.readouterr().err


def test_classes_are_in_the_order_that_is_named(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_id,finding\ns1,healthy\ns2,diseased\n")
    task = read_label_task(path, name="t", unit="study", classes=("healthy", "diseased"))
    assert task.classes == ("healthy", "diseased")
    assert read_label_task(path, name="t", unit="study").classes == ("diseased", "healthy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study_id,a\ns1,\ns2,\n", "column 'a' holds no label"),
        ("study_id,a,b\ns1,yes,low\ns2,no,high\n", "columns 'a' and 'b' share no class"),
        (
            "study_id,a\n" + "".join(f"s{n},{n}.5\n" for n in range(70)),
            "holds 70 different labels, 64 at most",
        ),
    ],
)
def test_labels_that_make_no_task_are_refused(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_label_task(path, name="t", unit="study")


def test_a_label_outside_the_named_classes_is_refused(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_id,a\ns1,yes\ns2,perhaps\n")
    with pytest.raises(DataError, match=r"holds \['perhaps'\], which are not among the classes"):
        read_label_task(path, name="t", unit="study", classes=("no", "yes"))
