"""One JSON document in each of the ways that pandas writes is the same table."""

import json

import pandas as pd
import pytest

from embedstore.errors import DataError
from embedstore.tables.remarks import describe_remarks
from embedstore.tables.table_file import read_rows

FRAME = pd.DataFrame({"path": ["a.png", "b.png"], "patient": ["007", "8"], "n": [1, 2]})
CELLS = {"path": ["a.png", "b.png"], "patient": ["007", "8"], "n": [1, 2]}


def read(folder, text, name="t.json"):
    (folder / name).write_text(text)
    return read_rows(folder / name)


@pytest.mark.parametrize("orient", ["records", "split", "index", "columns", "table"])
@pytest.mark.parametrize("indent", [None, 2])
def test_every_form_of_pandas_is_the_same_table(tmp_path, orient, indent):
    rows = read(tmp_path, FRAME.to_json(orient=orient, indent=indent))
    assert {name: rows.columns[name] for name in CELLS} == CELLS


def test_a_list_per_column_and_records_below_a_name_are_read_and_said(tmp_path):
    for document in (FRAME.to_dict("list"), {"count": 2, "results": FRAME.to_dict("records")}):
        rows = read(tmp_path, json.dumps(document))
        assert dict(rows.columns) == CELLS
        assert describe_remarks(rows.remarks)["table"] in (
            "a list for each column read",
            "records below 'results' read",
        )


def test_an_index_of_pandas_that_says_something_is_left_out_and_said(tmp_path):
    rows = read(tmp_path, FRAME.set_index(pd.Index(["x", "y"])).to_json(orient="split"))
    assert dict(rows.columns) == CELLS
    assert "their index left out" in describe_remarks(rows.remarks)["table"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (FRAME.values.tolist(), r"object 1: .* Its cells have no names: write it as records"),
        ({"path": {"x": "a.png"}, "n": {"x": 1}}, r"\['path', 'n'\] or \['x'\] may be the columns"),
        ({"path": ["a.png"], "n": [1, 2]}, "must have one length; found path 1, n 2"),
        ({"columns": ["path", "n"], "data": [["a.png"]]}, "'columns' and the rows below 'data'"),
    ],
)
def test_a_form_that_may_be_read_in_two_ways_is_refused(tmp_path, document, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, json.dumps(document))


def test_one_record_stays_a_record(tmp_path):
    assert dict(read(tmp_path, '{"path": "a.png", "n": 1}\n', "t.jsonl").columns) == {
        "path": ["a.png"],
        "n": [1],
    }
