from pathlib import Path

import pytest

from cli.main import run
from embedstore.datasets.label_table import read_label_table, read_label_task
from embedstore.errors import DataError, UsageError
from embedstore.queries.load_view import load_view
from embedstore.store.reader import open_store
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
        ("study_id,mass\na,x\nb,\n", "the only label is 'x'; .*`empty='negative'` takes empty cells as 0"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_label_task(path, name="t", unit="study")


def test_columns_of_nearly_the_name_and_rows_that_are_there_twice_are_taken_and_said(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("Study ID,mass\na,Checked\nb,Unchecked\na,Checked\n")
    task, said = read_label_table(path, name="t", unit="study")
    assert task.labels.to_pydict() == {"unit_id": ["a", "b"], "mass": ["Checked", "Unchecked"]}
    assert (task.classes, task.positive) == (("Unchecked", "Checked"), "Checked")
    assert said["columns"] == "'Study ID' as study_id"
    assert said["table"] == "1 row left out, equal to an earlier one in every cell"


def test_labels_that_look_like_lists_are_pointed_out(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_id,finding\na,mass|nodule\nb,mass\nc,nodule\n")
    _, said = read_label_table(path, name="t", unit="study")
    assert said["t: labels that look like lists"] == "`label_separator='|'` makes a target of each finding"


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
    assert read_label_task(path, name="t", unit="study").classes == ("healthy", "diseased")
    turned = read_label_task(path, name="t", unit="study", positive="healthy")
    assert (turned.classes, turned.positive) == (("diseased", "healthy"), "healthy")


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


def test_the_positive_of_two_classes_is_put_last(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_id,finding\ns1,healthy\ns2,diseased\n")
    task = read_label_task(path, name="t", unit="study", positive="diseased")
    assert (task.classes, task.positive) == (("healthy", "diseased"), "diseased")
    with pytest.raises(DataError, match="of two classes the second is the positive one"):
        read_label_task(path, name="t", unit="study", classes=("diseased", "healthy"), positive="diseased")


def test_grades_are_named_in_order_or_are_numbers(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_id,finding\ns1,early\ns2,late\ns3,between\n")
    with pytest.raises(
        UsageError, match=r"must be named from the least to the gravest by `classes`; .*between, early, late"
    ):
        read_label_task(path, name="t", unit="study", ordered=True)
    path.write_text("study_id,finding\ns1,mild\ns2,severe\ns3,moderate\n")
    grades = ("mild", "moderate", "severe")
    task = read_label_task(path, name="t", unit="study", classes=grades, positive="moderate", ordered=True)
    assert (task.classes, task.positive, task.ordered) == (grades, "moderate", True)
    path.write_text("study_id,finding\ns1,10\ns2,2\ns3,0\n")
    numbers = read_label_task(path, name="t", unit="study", ordered=True)
    assert (numbers.classes, numbers.positive) == (("0", "2", "10"), None)


def test_words_for_grades_stand_in_the_clinical_order_and_it_is_said(tmp_path):
    """By letter the order would be mild, moderate, normal, severe, and quadratic kappa .381 in place of .807."""
    path = tmp_path / "labels.csv"
    path.write_text("study_id,grade\ns1,mild\ns2,severe\ns3,moderate\ns4,normal\n")
    clinical = ("normal", "mild", "moderate", "severe")
    task, said = read_label_table(path, name="t", unit="study")
    assert (task.classes, task.ordered, task.positive) == (clinical, False, None)
    order = "normal < mild < moderate < severe, by words of severity"
    assert said["t: order of grades"] == (
        f"{order}; `ordered` takes this order, and quadratic kappa is stated"
    )
    task, said = read_label_table(path, name="t", unit="study", ordered=True)
    assert (task.classes, task.ordered) == (clinical, True)
    assert said["t: order of grades"] == order
    named = read_label_table(path, name="t", unit="study", classes=clinical[::-1])
    assert (named[0].classes, named[1]) == (clinical[::-1], {})


def test_a_table_may_name_its_units_by_several_columns(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("level,study_id,canal\nl4,s1,no\nl5,s1,yes\n")
    task = read_label_task(path, name="t", unit="study_id,level")
    assert task.targets == ("canal",)
    assert task.unit_ids == ["s1|l4", "s1|l5"]
    path.write_text("level,study_id,canal\nl4,s1,no\nl4,s1,yes\n")
    with pytest.raises(DataError, match="line 3: study_id 's1', level 'l4' is empty or stands twice"):
        read_label_task(path, name="t", unit="study_id,level")
    path.write_text("study_id,canal\ns1,no\n")
    with pytest.raises(DataError, match="needs the column 'level'; found study_id, canal"):
        read_label_task(path, name="t", unit="study_id,level")


def test_label_takes_a_key_of_columns_an_order_and_a_positive_class(tmp_path, capsys):
    make_store(tmp_path / "s")
    # Studies of two images each, by turns in a train and a valid split: study0 is image0 and image1.
    Path("t.csv").write_text(
        "study_id,split,grade\nstudy0,train,mild\nstudy1,train,severe\nstudy2,valid,moderate\nstudy8,test,mild\n"
    )
    command = ["label", "s", "--name", "grade", "--csv", "t.csv", "--unit", "study_id, split"]
    assert run([*command, "--classes", "mild,moderate,severe", "--ordered", "--positive", "severe"]) == 0
    printed = capsys.readouterr()
    assert "classes in order mild, moderate, severe; positive: severe" in printed.out
    assert "1 of 4 study_id,split ids are not in store s: 'study8|test'" in printed.err
    task = read_task(tmp_path / "s", "grade")
    assert (task.unit, task.ordered, task.positive) == ("study_id,split", True, "severe")
    assert task.labels.column_names == ["study_id", "split", "grade"]
    view = load_view(open_store(tmp_path / "s"), "grade")
    assert view.unit_ids.tolist() == ["study0|train", "study1|train", "study2|valid"]
    assert view.y.tolist() == [[0], [2], [1]]
    assert run(["label", "s", "--name", "g", "--csv", "t.csv", "--unit", "study_id,level"]) == 1
    assert "needs the column 'level'" in capsys.readouterr().err
    assert run(["label", "s", "--name", "g", "--csv", "t.csv", "--unit", "study_id,,level"]) == 1
    assert "unit must be 'image', 'study' or different manifest columns" in capsys.readouterr().err
