"""Label columns of a table of images -> tasks; what is decided there is said."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.datasets.table import Table
from embedstore.errors import DataError, UsageError


def read(folder, text, **options):
    (folder / "t.csv").write_text(text)
    return Table(**options).read(folder / "t.csv")


def labels_of(task):
    """Return unit -> labels in the order of the targets."""
    return {row["unit_id"]: [row[target] for target in task.targets] for row in task.labels.to_pylist()}


def studies_of_three(wrong=()):
    """Twenty studies of three images; every other one says yes, but for the rows in `wrong`."""
    lines = ["path,study_id,sign"]
    for row in range(60):
        label = "yes" if (row // 3 % 2) != (row in wrong) else "no"
        lines.append(f"{row}.png,S{row // 3},{label}")
    return "\n".join(lines) + "\n"


def test_one_mistyped_label_is_named_and_does_not_make_an_image_task(tmp_path):
    assert read(tmp_path, studies_of_three(), label="sign").tasks[0].labels.num_rows == 20
    with pytest.raises(DataError) as refusal:
        read(tmp_path, studies_of_three({0}), label="sign")
    assert str(refusal.value) == (
        f"{tmp_path / 't.csv'}: label 'sign': 1 of 20 studies have different labels on their rows: "
        "'S0' (no on line 3, line 4; yes on line 2). Mend these cells, or say `unit='image'` to label "
        "each image by itself"
    )
    task = read(tmp_path, studies_of_three({0}), label="sign", unit="image").tasks[0]
    assert (task.unit, task.labels.num_rows) == ("image", 60)


def test_many_contradicting_studies_are_counted(tmp_path):
    with pytest.raises(DataError, match=r"7 of 20 studies .* and 2 more"):
        read(tmp_path, studies_of_three(range(0, 21, 3)), label="sign")


def test_one_empty_study_does_not_make_an_image_task(tmp_path):
    text = "path,study_id,sign\n1.png,a,yes\n2.png,,no\n3.png,b,no\n"
    with pytest.raises(
        DataError, match=r"line 3: study_id is empty, as on 1 of 3 rows with a label.*`unit='image'`"
    ):
        read(tmp_path, text, label="sign")
    collection = read(tmp_path, text, label="sign", unit="study")
    assert labels_of(collection.tasks[0]) == {"a": ["yes"], "b": ["no"]}
    assert collection.summary["rows without study"] == "1; they have no label"
    assert read(tmp_path, text.replace(",,no", ",,"), label="sign").tasks[0].unit == "study"


def test_a_unit_of_several_columns_keeps_them_in_the_label_table(tmp_path):
    text = "path,study_id,level,sign\n1.png,a,l1,yes\n2.png,a,l2,no\n3.png,a,l1,\n4.png,b,,no\n"
    task = read(tmp_path, text, label="sign", unit="study_id,level").tasks[0]
    assert task.labels.to_pylist() == [
        {"study_id": "a", "level": "l1", "sign": "yes"},
        {"study_id": "a", "level": "l2", "sign": "no"},
    ]
    with pytest.raises(UsageError, match=r"`unit=levl` needs the column 'levl'.* Did you mean 'level'"):
        read(tmp_path, text, label="sign", unit="levl")


def test_the_summary_says_which_class_is_positive_and_how_to_swap(tmp_path):
    text = "path,sign\n1.png,normal\n2.png,abnormal\n"
    said = read(tmp_path, text, label="sign").summary["task sign"]
    assert said == "per image, classes normal, abnormal, positive: abnormal (`positive='normal'` swaps)"
    swapped = read(tmp_path, text, label="sign", positive="normal").tasks[0]
    assert (swapped.classes, swapped.positive) == (("abnormal", "normal"), "normal")


def test_words_for_grades_stand_in_their_order_and_the_summary_says_it(tmp_path):
    collection = read(tmp_path, "path,grade\n1.png,KL 2\n2.png,KL 10\n3.png,normal\n", label="grade")
    assert collection.tasks[0].classes == ("normal", "KL 2", "KL 10")
    assert collection.summary["grade: order of grades"] == "normal < KL 2 < KL 10, by Kellgren-Lawrence"


def test_a_positive_class_may_belong_to_one_of_several_columns(tmp_path):
    text = "path,a,b,grade\n1.png,yes,yes,1\n2.png,no,no,2\n3.png,no,no,3\n"
    tasks = read(tmp_path, text, label=["a", "b", "grade"], positive=["b=no", "3"]).tasks
    assert [(task.classes, task.positive) for task in tasks] == [
        (("no", "yes"), "yes"),
        (("yes", "no"), "no"),
        (("1", "2", "3"), "3"),
    ]
    with pytest.raises(
        UsageError, match=r"`positive` must be a class of 'b' \(no, yes\); found 'non'. Did you mean 'no'"
    ):
        read(tmp_path, text, label=["a", "b"], positive="b=non")
    with pytest.raises(UsageError, match=r"`positive` must be a class of a label column .*found 'maybe'"):
        read(tmp_path, text, label="a", positive="maybe")


def test_a_list_of_findings_is_one_task_with_a_target_each(tmp_path):
    text = (
        'path,Finding Labels\n1.png,Mass|Nodule/Mass\n2.png,No Finding\n3.png,mass\n4.png,\n5.png,Mass|"a, b"\n'
        "6.png,No Finding|Mass\n"
    ).replace('Mass|"a, b"', '"Mass|a, b"')
    collection = read(tmp_path, text, label="Finding Labels", label_separator="|")
    (task,) = collection.tasks
    assert (task.name, task.unit, task.classes, task.positive) == ("Finding-Labels", "image", ("0", "1"), "1")
    assert task.targets == ("a, b", "Mass", "Nodule/Mass")
    assert labels_of(task) == {
        "1.png": ["0", "1", "1"],
        "2.png": ["0", "0", "0"],
        "3.png": ["0", "1", "0"],
        "4.png": [None, None, None],
        "5.png": ["1", "1", "0"],
        "6.png": [None, None, None],
    }
    said = {name.partition(": ")[2]: fact for name, fact in collection.summary.items()}
    assert said["positive images"] == "Mass 3, a, b 1, Nodule/Mass 1"
    assert said["spelled in two ways"] == "'mass' as 'Mass' 1"
    assert said["rows with nothing found"] == "2; every finding is 0 there"
    assert said["contradictions"].startswith(
        "1 rows say that nothing was found and name a finding, such as 'No F"
    )
    assert said["rows with an empty list"] == "1; missing labels (`empty='missing'`)"


def test_an_empty_list_may_be_negative(tmp_path):
    task = read(
        tmp_path,
        "path,x\n1.png,\"['a']\"\n2.png,\n3.png,[]\n",
        label="x",
        label_separator=",",
        empty="negative",
    ).tasks[0]
    assert labels_of(task) == {"1.png": ["1"], "2.png": ["0"], "3.png": ["0"]}


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json"])
def test_lists_may_be_those_of_parquet_and_json(tmp_path, kind):
    rows = [
        {"path": "1.png", "x": ["Mass", 'a "b"']},
        {"path": "2.png", "x": []},
        {"path": "3.png", "x": ["normal"]},
    ]
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    task = Table(label="x", label_separator=",").read(path).tasks[0]
    assert labels_of(task) == {"1.png": ["1", "1"], "2.png": [None, None], "3.png": ["0", "0"]}
    with pytest.raises(DataError, match=r"'x' must hold text or numbers.*`label_separator=','`"):
        Table(label="x").read(path)


def test_lists_of_a_study_must_agree_and_an_image_without_one_follows_the_others(tmp_path):
    text = "path,study_id,x\n1.png,s,A|B\n2.png,s,\n3.png,t,No Finding\n"
    assert labels_of(read(tmp_path, text, label="x", label_separator="|").tasks[0]) == {
        "s": ["1", "1"],
        "t": ["0", "0"],
    }
    with pytest.raises(DataError, match=r"1 of 2 studies .*'s' \(B: 0 on line 3; 1 on line 2\)"):
        read(tmp_path, text.replace("2.png,s,", "2.png,s,A"), label="x", label_separator="|")


def test_a_separator_for_two_label_columns_must_be_in_both_or_name_one(tmp_path):
    text = "path,x,view\n1.png,A|B,PA\n2.png,A,AP\n"
    with pytest.raises(UsageError, match=r"no cell of 'view' holds '\|'"):
        read(tmp_path, text, label=["x", "view"], label_separator="|")
    tasks = read(
        tmp_path, text.replace("2.png,A", "2.png,B"), label=["x", "view"], label_separator="x=|"
    ).tasks
    assert [task.targets for task in tasks] == [("A", "B"), ("view",)]


def test_a_list_without_a_separator_says_which_one_to_name(tmp_path):
    text = "path,x\n1.png,A|B\n2.png,A\n3.png,B\n"
    said = read(tmp_path, text, label="x").summary["x: labels that look like lists"]
    assert said == "`label_separator='|'` makes a target of each finding"
    many = "path,x\n" + "".join(f"{n}.png,\"['f{n}', 'g']\"\n" for n in range(120))
    with pytest.raises(DataError, match=r"found 120.*`label_separator=','` makes a target"):
        read(tmp_path, many, label="x")


GROUP = "path,a,b,c,d\n1.png,1.0,0,-1,\n2.png,0.0,-1,1.0,\n3.png,,yes,0,\n4.png,-1,no,,\n"


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, [["1", "0", None], ["0", None, "1"], [None, "1", "0"], [None, "0", None]]),
        ({"uncertain": "positive"}, [["1", "0", "1"], ["0", "1", "1"], [None, "1", "0"], ["1", "0", None]]),
        ({"uncertain": "negative"}, [["1", "0", "0"], ["0", "0", "1"], [None, "1", "0"], ["0", "0", None]]),
        (
            {"uncertain": "class"},
            [["1", "0", "uncertain"], ["0", "uncertain", "1"], [None, "1", "0"], ["uncertain", "0", None]],
        ),
        ({"empty": "negative"}, [["1", "0", None], ["0", None, "1"], ["0", "1", "0"], [None, "0", "0"]]),
    ],
)
def test_a_group_of_columns_is_one_task(tmp_path, options, labels):
    collection = read(tmp_path, GROUP, label_group="g=a,b,c,d", **options)
    (task,) = collection.tasks
    assert (task.targets, task.positive) == (("a", "b", "c"), "1")
    assert list(labels_of(task).values()) == labels
    assert collection.summary["g: columns without a label, left out"] == "d"
    assert str(collection.summary["g: uncertain (-1)"]).startswith("3 labels; ")
    assert collection.manifest.extra_columns == []


@pytest.mark.parametrize(
    ("yes", "no"), [("Checked", "Unchecked"), ("x", "no"), ("\u2713", "\u2610"), ("Ja", "nein")]
)
def test_ticked_boxes_are_findings(tmp_path, yes, no):
    text = f"path,a,b\n1.png,{yes},{no}\n2.png,{no},{yes}\n3.png,{no},\n"
    (task,) = read(tmp_path, text, label_group="g=a,b").tasks
    assert list(labels_of(task).values()) == [["1", "0"], ["0", "1"], ["0", None]]


def test_where_only_what_is_found_is_ticked_it_is_said_how_to_read_empty_cells(tmp_path):
    text = "path,a\n1.png,x\n2.png,\n"
    with pytest.raises(DataError, match=r"found 1 only; .*`empty='negative'` takes empty cells as 0"):
        read(tmp_path, text, label_group="g=a")
    with pytest.raises(DataError, match="`label_group='a=a'` with `empty='negative'` in place of `label`"):
        read(tmp_path, text, label="a")
    (task,) = read(tmp_path, text, label_group="g=a", empty="negative").tasks
    assert list(labels_of(task).values()) == [["1"], ["0"]]


def test_uncertain_and_certain_rows_of_a_study_are_a_disagreement(tmp_path):
    text = "path,study_id,a\n1.png,s,1\n2.png,s,-1\n3.png,t,0\n"
    with pytest.raises(DataError, match=r"'s' \(1 on line 2; uncertain on line 3\)"):
        read(tmp_path, text, label_group="g=a")


def test_a_column_may_be_a_task_of_its_own_and_stand_in_a_group(tmp_path):
    tasks = read(tmp_path, GROUP, label="b", label_group=["g=a,b", "h=c"], uncertain="missing").tasks
    assert [(task.name, task.targets) for task in tasks] == [("b", ("b",)), ("g", ("a", "b")), ("h", ("c",))]


def test_a_label_of_0_1_and_minus_1_has_uncertain_cells(tmp_path):
    collection = read(tmp_path, "path,a\n1.png,1.0\n2.png,0.0\n3.png,-1.0\n", label="a")
    assert labels_of(collection.tasks[0]) == {"1.png": ["1"], "2.png": ["0"], "3.png": [None]}
    assert collection.summary["a: uncertain (-1)"] == "1 labels; missing labels (`uncertain='missing'`)"


def test_minus_1_beside_1_alone_is_refused_until_it_is_said_what_it_is(tmp_path):
    text = "path,a\n1.png,1\n2.png,-1\n"
    with pytest.raises(DataError, match=r"holds -1 and 1 only, so -1 may mean uncertain or no.*`uncertain`"):
        read(tmp_path, text, label="a")
    task = read(tmp_path, text, label="a", uncertain="negative").tasks[0]
    assert labels_of(task) == {"1.png": ["1"], "2.png": ["0"]}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "path,a\n1.png,0\n2.png,2\n",
            {"label_group": "g=a"},
            r"line 3: column 'a' of a label group .*found '2'",
        ),
        (
            "path,a\n1.png,0\n2.png,0\n",
            {"label_group": "g=a"},
            r"'g' needs 0 and 1 among its labels; found 0 only",
        ),
        ("path,a\n1.png,\n2.png,\n", {"label_group": "g=a"}, r"label group g: a hold no label"),
        ("path,a\n1.png,normal\n2.png,benign\n", {"label": "a"}, r"both say that nothing was found"),
    ],
)
def test_columns_that_make_no_task_are_refused(tmp_path, text, options, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": ["a b", "a-b"]}, "two tasks would be called 'a-b'"),
        ({"label": "a b", "label_group": "A-B=c"}, "two tasks would be called 'a-b'"),
        ({"label": "unit_id"}, "a label must not be called 'unit_id'"),
    ],
)
def test_names_that_cannot_stand_beside_each_other_are_refused(tmp_path, options, message):
    text = "path,a b,a-b,c,unit_id\n1.png,x,x,0,x\n2.png,y,y,1,y\n"
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text, **options)
