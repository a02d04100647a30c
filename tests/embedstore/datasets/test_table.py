"""The table reader: CSV, Parquet and JSON lines with a path per row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.datasets.table import Table
from embedstore.errors import DataError, UsageError
from embedstore.testing import check_reader

ROWS = [
    {
        "path": "a/1.png",
        "patient_id": "007",
        "study_id": "s1",
        "split": "train",
        "grade": "10",
        "site": "Bern",
    },
    {
        "path": "a/2.png",
        "patient_id": "007",
        "study_id": "s1",
        "split": "train",
        "grade": "10",
        "site": "Bern",
    },
    {"path": "b 1.png", "patient_id": "8", "study_id": "s2", "split": "test", "grade": "2", "site": "Genf"},
    {"path": "b,2.png", "patient_id": "9", "study_id": "s3", "split": None, "grade": None, "site": None},
]


def write(folder, rows, kind):
    path = folder / f"images.{kind}"
    if kind == "csv":
        lines = [",".join(rows[0])]
        lines += [
            ",".join(f'"{cell}"' if "," in str(cell) else str(cell or "") for cell in r.values())
            for r in rows
        ]
        path.write_text("\n".join(lines) + "\n")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def table(request, tmp_path):
    for row in ROWS:
        (tmp_path / row["path"]).parent.mkdir(exist_ok=True)
        (tmp_path / row["path"]).touch()
    return write(tmp_path, ROWS, request.param)


def csv(folder, text):
    path = folder / "images.csv"
    path.write_text(text)
    return path


def test_the_reader_obeys_the_contract_in_every_format(table):
    check_reader(Table(label=["grade"]), table, knows_patients=True)


def test_every_format_gives_the_same_records(table):
    collection = Table(label=["grade"]).read(table)
    manifest = collection.manifest
    assert manifest.column("path") == [row["path"] for row in ROWS]
    assert manifest.column("image_id") == manifest.column("path")
    assert manifest.column("patient_id") == ["007", "007", "8", "9"]
    assert manifest.column("split") == ["train", "train", "test", None]
    assert manifest.column("site") == ["Bern", "Bern", "Genf", None]
    assert manifest.extra_columns == ["site"]
    assert collection.root == table.parent


def test_labels_become_a_study_task_with_classes_in_numeric_order(table):
    (task,) = Table(label=["grade"]).read(table).tasks
    assert (task.name, task.unit, task.classes, task.targets) == ("grade", "study", ("2", "10"), ("grade",))
    assert task.labels.to_pylist() == [
        {"unit_id": "s1", "grade": "10"},
        {"unit_id": "s2", "grade": "2"},
        {"unit_id": "s3", "grade": None},
    ]
    assert task.subgroups == ("site",)


def test_labels_of_images_that_have_studies_are_asked_for_by_name(tmp_path):
    path = csv(tmp_path, "path,study_id,sign\n1.png,s,yes\n2.png,s,no\n3.png,t,no\n")
    (task,) = Table(label=["sign"], unit="image").read(path).tasks
    assert (task.unit, task.classes) == ("image", ("no", "yes"))
    assert task.labels.column("unit_id").to_pylist() == ["1.png", "2.png", "3.png"]


def test_without_studies_labels_belong_to_images(tmp_path):
    path = csv(tmp_path, "path,sign\n1.png,b\n2.png,a\n")
    assert Table(label=["sign"]).read(path).tasks[0].unit == "image"


def test_a_label_on_one_image_of_a_study_holds_for_the_study(tmp_path):
    path = csv(tmp_path, "path,study_id,sign\n1.png,s,\n2.png,s,yes\n3.png,t,no\n")
    (task,) = Table(label=["sign"]).read(path).tasks
    assert task.labels.to_pydict() == {"unit_id": ["s", "t"], "sign": ["yes", "no"]}


def test_several_label_columns_become_several_tasks(tmp_path):
    path = csv(tmp_path, "path,effusion,any mass\n1.png,0,x\n2.png,1,y\n")
    tasks = Table(label=["effusion", "any mass"]).read(path).tasks
    assert [task.name for task in tasks] == ["effusion", "any-mass"]
    assert [task.targets for task in tasks] == [("effusion",), ("any mass",)]


def test_numbers_and_truth_values_of_parquet_become_class_names(tmp_path):
    rows = {
        "path": ["1", "2", "3"],
        "grade": [1.0, None, 0.0],
        "sick": [True, False, None],
        "age": [40, 51, None],
    }
    pq.write_table(pa.table(rows), tmp_path / "images.parquet")
    collection = Table(label=["grade", "sick"]).read(tmp_path / "images.parquet")
    assert [task.classes for task in collection.tasks] == [("0", "1"), ("false", "true")]
    assert collection.tasks[0].labels.column("grade").to_pylist() == ["1", None, "0"]
    assert collection.manifest.column("age") == [40, 51, None]


def test_columns_of_other_names_are_mapped(tmp_path):
    path = csv(tmp_path, "file,subject,patient_id\n1.png,p1,ignored\n2.png,p2,ignored\n")
    manifest = Table(columns={"path": "file", "patient_id": "subject"}).read(path).manifest
    assert manifest.column("path") == ["1.png", "2.png"]
    assert manifest.column("patient_id") == ["p1", "p2"]


def test_frames_of_one_file_have_ids_of_their_own(tmp_path):
    path = csv(tmp_path, "path,frame\nloop.dcm,0\nloop.dcm,1\n")
    manifest = Table().read(path).manifest
    assert manifest.column("image_id") == ["loop.dcm", "loop.dcm#1"]
    assert manifest.column("frame") == [0, 1]


def test_a_missing_file_stays_a_record_and_is_counted(table):
    (table.parent / "a/2.png").unlink()
    collection = check_reader(Table(), table, knows_patients=True)
    assert len(collection.manifest) == 4
    assert collection.summary["absent"] == "1 of 4 files, such as a/2.png"


def test_quoted_cells_may_hold_line_ends_and_later_lines_keep_their_numbers(tmp_path):
    path = csv(tmp_path, 'path,note\n1.png,"two\nlines"\n../2.png,x\n')
    with pytest.raises(DataError, match=r"images.csv: line 4: path '../2.png' must be relative"):
        Table().read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,split\n1.png,train\n2.png,odd\n",
            r"line 3: split must be train, valid, test or empty; found 'odd'",
        ),
        ("path\n/etc/passwd\n", r"line 2: path '/etc/passwd' must be relative"),
        ("path,patient_id\n1.png,a\n,b\n", r"line 3: the path is empty"),
        ("path\n1.png\n2.png\n1.png\n", r"line 4: image_id '1.png' stands on line 2 already"),
        ("path,frame\n1.png,first\n", r"line 2: frame must be a number from 0; found 'first'"),
        ("path,site\n1.png,a,b\n", r"line 2: 2 columns expected \(path, site\); found 3"),
        ("image,site\n1.png,a\n", r"the table needs the column 'path'; found image, site"),
        ("pth,site\n1.png,a\n", r"Did you mean 'pth'\?"),
        ("path,path\n1.png,a\n", r"column names must differ"),
        ("path,site\n", r"the table has no rows"),
        ("", r"the table is empty"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        Table().read(csv(tmp_path, text))


def test_a_label_column_that_is_not_there_or_has_one_class_is_refused(tmp_path):
    path = csv(tmp_path, "path,sign\n1.png,a\n2.png,a\n")
    with pytest.raises(DataError, match=r"label needs the column 'sing'.*Did you mean 'sign'"):
        Table(label=["sing"]).read(path)
    with pytest.raises(DataError, match=r"'sign' must hold 2 to 100 different classes; found 1: a"):
        Table(label=["sign"]).read(path)


def test_a_measurement_is_not_taken_for_a_label(tmp_path):
    path = csv(tmp_path, "path,mm\n" + "".join(f"{i}.png,{i / 7}\n" for i in range(200)))
    with pytest.raises(DataError, match="found 200"):
        Table(label=["mm"]).read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images.csv", b"path\n\x81\n", "neither UTF-8 nor Windows-1252"),
        ("images.csv", b'path\n"1.png\n', "cannot be read as csv"),
        ("images.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("images.jsonl", b'{"path": "1.png"}\n{"path"\n', "line 2: must be one JSON object"),
        ("images.jsonl", b"[1]\n", "line 1: must be one JSON object"),
        (
            "images.jsonl",
            b'{"path": "1.png"}\n{"path": ["1.png"]}\n',
            "line 2: 'path' must be text or a number",
        ),
        ("images.jsonl", b'{"path": ["1.png"], "label": 1}\n', "the table: 'path' must hold text or numbers"),
        ("images.csv", b"PAR1 no", "its ending is .csv, and it holds Parquet: rename it to images.parquet"),
        ("images.csv", b'[{"path": "1.png"}]', "it holds JSON: rename it to images.json"),
        ("images.csv", b"<table><tr>", "it holds HTML or XML. Save it as CSV"),
        ("images.parquet", b"path\n1.png\n", "is no Parquet.* rename it to images.csv"),
        ("images.jsonl", b"path\n1.png\n", "line 1: .* rename it to images.csv"),
        ("images.dat", b"path\n1.png\n", "found '.dat'. If it is separated text, rename it to images.csv"),
        ("images.xlsx", b"PK", r"must end in .csv, .*.jsonl, .*; found '.xlsx'. Save it as CSV"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Table().read(tmp_path / name)


def test_a_folder_or_nothing_in_place_of_a_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="found 'no ending'"):
        Table().read(tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        Table().read(tmp_path / "images.csv")


def test_a_column_of_file_names_is_pointed_out_where_the_path_is_missing(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("empty,label,filename\n,1,a.png\n,0,b.JPG\n")
    with pytest.raises(DataError, match=r"needs the column 'path'; .* `column='path=filename'`"):
        Table().read(table)
    table.write_text("empty,label,filename\n,1,a\n,0,b.JPG\n")
    with pytest.raises(DataError, match=r"needs the column 'path'; found empty, label, filename$"):
        Table().read(table)


def test_columns_of_lists_and_structures_are_left_out_and_said(tmp_path):
    boxes, header = [[1, 2], None], [{"kvp": 80}, {"kvp": 90}]
    pq.write_table(
        pa.table({"path": ["1.png", "2.png"], "boxes": boxes, "header": header, "age": [51, 52]}),
        tmp_path / "images.parquet",
    )
    documents = [
        {"path": f"{row + 1}.png", "boxes": boxes[row], "header": header[row], "age": 51 + row}
        for row in range(2)
    ]
    (tmp_path / "images.jsonl").write_text("\n".join(map(json.dumps, documents)))
    for name in ("images.parquet", "images.jsonl"):
        found = Table().read(tmp_path / name)
        assert found.manifest.column("age") == [51, 52]
        assert not {"boxes", "header"} & set(found.manifest.table.column_names)
        assert "2 columns of lists or structures left out ('boxes', 'header')" in str(dict(found.summary))


def test_impossible_options_are_refused():
    with pytest.raises(UsageError, match="found 'file'"):
        Table(columns={"file": "path"})
    with pytest.raises(UsageError, match="found 'path'"):
        Table(label=["path"])
