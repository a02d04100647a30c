"""Habits of people who make tables: files put behind each other, rows twice, columns of other names, folders."""

import pytest

from embedstore.datasets.table import Table
from embedstore.errors import DataError


def read(folder, text, **options):
    (folder / "t.csv").write_text(text)
    for number in range(4):
        (folder / f"{number}.png").touch()
    return Table(**options).read(folder / "t.csv")


def test_a_header_that_is_repeated_is_no_row(tmp_path):
    collection = read(tmp_path, "path,label\n0.png,no\n1.png,yes\npath,label\n2.png,no\n", label="label")
    assert collection.manifest.column("path") == ["0.png", "1.png", "2.png"]
    assert collection.tasks[0].classes == ("no", "yes")
    assert collection.summary["table"] == "1 row left out that repeats the header"


def test_a_row_that_is_there_twice_is_one_and_two_rows_of_a_file_are_refused_with_their_difference(tmp_path):
    collection = read(tmp_path, "path,label\n0.png,no\n1.png,yes\n0.png,no\n2.png,\n", label="label")
    assert collection.manifest.column("path") == ["0.png", "1.png", "2.png"]
    assert collection.summary["table"] == "1 row left out, equal to an earlier one in every cell"
    with pytest.raises(
        DataError,
        match=r"line 4: image_id '0.png' stands on line 2 already \(label 'no' there and 'yes' here\)",
    ):
        read(tmp_path, "path,label\n0.png,no\n1.png,yes\n0.png,yes\n", label="label")


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("path,subject_id", "no patient_id; if 'subject_id' holds it: `column='patient_id=subject_id'`"),
        ("path,StudyInstanceUID", "no study_id; if 'StudyInstanceUID' holds it"),
        ("path,Subset", "no split; if 'Subset' holds it"),
    ],
)
def test_a_column_that_may_hold_patients_studies_or_splits_is_pointed_out(tmp_path, header, hint):
    summary = read(tmp_path, f"{header}\n0.png,train\n1.png,test\n").summary
    assert str(summary["columns"]).startswith(hint)


def test_a_column_that_was_taken_is_not_pointed_out(tmp_path):
    text = "path,subject_id\n0.png,a\n1.png,b\n"
    assert "columns" not in read(tmp_path, text, columns={"patient_id": "subject_id"}).summary
    assert "columns" not in read(tmp_path, "path,patient_id,case\n0.png,P,1\n").summary


def test_patients_on_both_sides_of_the_split_are_counted(tmp_path):
    text = "path,patient_id,split\n0.png,P,Training set\n1.png,P,test\n2.png,Q,validation_set\n3.png,R,\n"
    collection = read(tmp_path, text)
    assert collection.manifest.column("split") == ["train", "test", "valid", None]
    assert collection.summary["patients in several splits"] == 1


def test_a_table_of_folders_says_so(tmp_path):
    (tmp_path / "study").mkdir()
    assert read(tmp_path, "path,n\nstudy,1\n").summary["paths"] == "'study' is a folder: a row names one file"


def test_files_of_another_ending_are_named_where_the_table_s_are_absent(tmp_path):
    summary = read(tmp_path, "path,n\n0.jpg,1\n1.jpg,2\n").summary
    assert summary["paths"] == "'0.jpg' is absent, and '0.png' is there: mend the ending in the table"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("0.png,no\n1.png,yes\n", "found 0.png, no. The first line must name the columns"),
        ("path^label\n0.png^no\n", "Cells must be separated by commas, semicolons, tabs or vertical bars"),
    ],
)
def test_a_table_without_names_or_known_separators_says_so(tmp_path, text, hint):
    with pytest.raises(DataError, match=hint):
        read(tmp_path, text, label="label")
