"""Columns by template, and columns of further tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from embedstore.datasets.table import Table
from embedstore.datasets.table_columns import with_templates
from embedstore.errors import DataError, UsageError
from embedstore.tables.rows import Rows

ROWS = Rows(
    Path("t.csv"),
    pa.table(
        {
            "Path": ["set/train/p1/s2/a.png", "set\\valid\\p2\\s1\\b.png"],
            "id": ["10032", None],
            "n": [7.0, 8.0],
        }
    ),
    ["line 2", "line 3"].__getitem__,
)


@pytest.mark.parametrize(
    ("template", "cells"),
    [
        ("{Path[-3]}-{Path[-2]}", ["p1-s2", "p2-s1"]),
        ("{Path[0]}", ["set", "set"]),
        ("p{id:.2}/p{id}.png", ["p10/p10032.png", None]),
        ("{n}", ["7", "8"]),
        ("{Path[1]:.1}", ["t", "v"]),
    ],
)
def test_a_template_makes_a_column(template, cells):
    assert with_templates(ROWS, [template]).columns[template] == cells


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{path}", r"t.csv: \{path\} needs the column 'path'; found Path, id, n. Did you mean 'Path'"),
        ("{Path[-6]}", r"t.csv: line 2: .* has 5 parts, so there is no part -6"),
        ("{Path.__class__}", r"needs the column 'Path.__class__'"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template, message):
    with pytest.raises(DataError, match=message):
        with_templates(ROWS, [template])


def write(folder, **tables):
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)


def test_a_joined_table_gives_its_columns_to_matching_rows(tmp_path):
    write(
        tmp_path,
        images="path,patient_id,study_id\n1.png,p,1\n2.png,p,2\n3.png,q,1\n",
        labels="study_id,patient_id,sign,site\n1,q,yes,B\n1,p,no,A\n9,z,yes,C\n",
    )
    collection = Table(label="sign", join="labels.csv", unit="image").read(tmp_path / "images.csv")
    assert collection.manifest.column("site") == ["A", None, "B"]
    assert collection.tasks[0].labels.column("sign").to_pylist() == ["no", None, "yes"]
    assert collection.summary["joined labels.csv"] == "by patient_id, study_id: 2 of 3 rows have a match"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "study,sign\n1,yes\n",
            r"labels.csv: `join` needs a column that images.csv has too \(path, study_id\)",
        ),
        ("study_id,sign\n1,yes\n1,no\n", r"line 3: study_id '1' stands on line 2 already"),
        (
            "study_id,sign\n7,yes\n",
            r"matches no row of images.csv; it has study_id '7', images.csv has study_id '1'",
        ),
    ],
)
def test_a_table_that_cannot_be_joined_is_refused(tmp_path, labels, message):
    write(tmp_path, images="path,study_id\n1.png,1\n2.png,2\n", labels=labels)
    with pytest.raises(DataError, match=message):
        Table(join=[tmp_path / "labels.csv"]).read(tmp_path / "images.csv")


def test_a_joined_table_that_is_not_there_is_named(tmp_path):
    write(tmp_path, images="path\n1.png\n")
    with pytest.raises(UsageError, match=r"`join`: there is no file labels\.csv"):
        Table(join="labels.csv").read(tmp_path / "images.csv")


def test_words_for_splits_are_read_and_said(tmp_path):
    write(tmp_path, images="path,split\n1.png,validate\n2.png,train\n3.png,val\n4.png,validate\n5.png,\n")
    collection = Table().read(tmp_path / "images.csv")
    assert collection.manifest.column("split") == ["valid", "train", "valid", "valid", None]
    assert "validate as valid" in str(collection.summary["column split"])
