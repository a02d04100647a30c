"""One logical table, written by many programs in many types, is one table here."""

import datetime
import decimal
import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.datasets.table import Table
from embedstore.errors import DataError
from embedstore.tables.cell_rules import CellRules, numbers_or_text
from embedstore.tables.remarks import describe_remarks
from embedstore.tables.table_file import read_rows

# What a reader should make of it: ids of any digits, two classes, whole numbers, fractions, words, dates.
_ROW = st.fixed_dictionaries(
    {
        "patient": st.integers(1, 40),
        "grade": st.sampled_from([1, 2, 10, None]),
        "finding": st.sampled_from(["no", "yes", None]),
        "age": st.one_of(st.none(), st.integers(0, 99)),
        "dose": st.one_of(st.none(), st.integers(-900, 900).map(lambda number: number / 8)),
        "site": st.sampled_from(["Bern", "Zürich, Süd", 'the "old" one', None]),
        "seen": st.one_of(st.none(), st.dates(datetime.date(1999, 1, 1), datetime.date(2030, 1, 1))),
        "smoker": st.sampled_from([True, False, None]),
    }
)


def frame_of(rows):
    """Return the rows as a data frame with the types that pandas gives: floats where one is missing."""
    frame = pd.DataFrame({name: [row[name] for row in rows] for name in rows[0]})
    frame.insert(0, "path", [f"i{number}.png" for number in range(len(rows))])
    for name in ("patient", "grade", "age", "dose"):
        frame[name] = frame[name].astype("float64")
    frame["seen"] = pd.to_datetime(frame["seen"])
    return frame


def _pandas_csv(frame, path):
    frame.to_csv(path)


def _german_excel(frame, path):
    frame.to_csv(path, index=False, sep=";", decimal=",", encoding="cp1252", lineterminator="\r\n")


def _unicode_text(frame, path):
    frame.to_csv(path, index=False, sep="\t", encoding="utf-16")


def _r_csv(frame, path):
    r = frame.assign(smoker=frame.smoker.map({True: "TRUE", False: "FALSE"}))
    r.index = [str(number + 1) for number in range(len(r))]
    r.to_csv(path, na_rep="NA", quoting=2)


def _shouting_csv(frame, path):
    """A cell in three ends in a blank, and of three or more cells of a class one is in capitals."""
    odd = frame.copy()
    odd["finding"] = [
        cell + "\u00a0" * (row % 3 == 0) if isinstance(cell, str) else None
        for row, cell in enumerate(frame.finding)
    ]
    for finding, count in frame.finding.value_counts().items():
        if count >= 3:
            odd.loc[frame.index[frame.finding == finding][0], "finding"] = finding.upper()
    odd.to_csv(path, index=False, na_rep=" n/a")


def _json_lines(frame, path):
    frame.to_json(path, orient="records", lines=True, date_format="iso")


def _json_list(frame, path):
    frame.to_json(path, orient="records", date_format="iso")


def _pandas_parquet(frame, path):
    frame.to_parquet(path)


def _typed_parquet(frame, path):
    def cells(name):
        return [None if pd.isna(cell) else cell for cell in frame[name]]

    columns = {
        "path": pa.array(cells("path")).dictionary_encode(),
        "patient": pa.array([int(cell) for cell in cells("patient")], pa.uint64()),
        "grade": pa.array(
            [None if cell is None else decimal.Decimal(int(cell)) for cell in cells("grade")],
            pa.decimal128(9, 2),
        ),
        "finding": pa.array(cells("finding"), pa.large_string()),
        "age": pa.array(cells("age"), pa.float32()),
        "dose": pa.array([None if cell is None else str(cell) for cell in cells("dose")]),
        "site": pa.array(cells("site")).dictionary_encode(),
        "seen": pa.array([None if cell is None else cell.date() for cell in cells("seen")], pa.date32()),
        "smoker": pa.array(cells("smoker"), pa.bool_()),
    }
    pq.write_table(pa.table(columns), path)


def _commented_csv(frame, path):
    path.write_text("Findings\n# exported today\n" + frame.to_csv(index=False) + "# end\n")


def _split_json(frame, path):
    frame.to_json(path, orient="split", date_format="iso")


def _columns_json(frame, path):
    frame.to_json(path, orient="columns", date_format="iso", indent=1)


DIALECTS = {
    "pandas.csv": _pandas_csv,
    "excel.csv": _german_excel,
    "excel.txt": _unicode_text,
    "r.csv": _r_csv,
    "shouting.csv": _shouting_csv,
    "lines.jsonl": _json_lines,
    "list.json": _json_list,
    "pandas.parquet": _pandas_parquet,
    "typed.parquet": _typed_parquet,
    "commented.csv": _commented_csv,
    "split.json": _split_json,
    "columns.json": _columns_json,
}


@settings(max_examples=8, deadline=None)
@given(st.lists(_ROW, min_size=8, max_size=16))
def test_one_table_in_many_spellings_is_one_manifest(rows):
    for number, kind in enumerate(("no", "yes")):  # both classes exist
        rows[number] = rows[number] | {"finding": kind, "grade": number + 1, "age": 7, "dose": 0.5}
        rows[number] |= {"site": "Bern", "seen": datetime.date(2020, 1, 2), "smoker": True}
    frame = frame_of(rows)
    expected = {
        "patient_id": [str(row["patient"]) for row in rows],
        "age": [row["age"] for row in rows],
        "dose": [row["dose"] for row in rows],
        "site": [row["site"] for row in rows],
        "seen": [row["seen"] and row["seen"].isoformat() for row in rows],
        "smoker": [None if row["smoker"] is None else str(row["smoker"]).lower() for row in rows],
    }
    tasks = {
        "grade": [None if row["grade"] is None else str(row["grade"]) for row in rows],
        "finding": [row["finding"] for row in rows],
    }
    with TemporaryDirectory() as name:
        for file, write in DIALECTS.items():
            path = Path(name) / file
            write(frame, path)
            collection = Table(columns={"patient_id": "patient"}, label=["grade", "finding"]).read(path)
            for column, cells in expected.items():
                assert collection.manifest.column(column) == cells, (file, column)
            for task in collection.tasks:
                (target,) = task.targets
                assert task.labels.column(target).to_pylist() == tasks[target], (file, target)
                assert task.classes == tuple(
                    sorted({*tasks[target]} - {None}, key=lambda label: (len(label), label))
                ), file


def test_columns_without_a_name_are_left_out_and_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",path,label,\n0,a.png,x,\n1,b.png,y,\n")
    rows = read_rows(path)
    assert rows.table.column_names == ["path", "label"]
    said = describe_remarks(rows.remarks)["table"]
    assert said == (
        "column 1, which has no name, left out (cells such as '0', '1'); "
        "column 4, which has no name, left out"
    )


def test_the_index_that_pandas_named_is_left_out_but_a_column_of_that_name_is_not(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame({"path": ["a.png", "b.png"]}).to_csv(path)
    pd.read_csv(path).to_csv(path, index=False)  # now it is called "Unnamed: 0"
    assert read_rows(path).table.column_names == ["path"]
    frame = pd.DataFrame({"path": ["a.png", "b.png"]}, index=["x", "y"])
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_rows(tmp_path / "t.parquet").table.column_names == ["path"]


def test_columns_of_one_name_are_one_where_they_are_equal_and_refused_where_not(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,x,x\na.png,1,1\n")
    assert read_rows(path).table.column_names == ["path", "x"]
    path.write_text("path,x,x\na.png,1,2\n")
    with pytest.raises(DataError, match="columns 2 and 3 are both 'x' and hold different cells"):
        read_rows(path)


def test_rows_without_any_cell_are_left_out_and_later_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,x\na.png,1\n,\n , \nb.png,2\n")
    rows = read_rows(path)
    assert rows.columns["path"] == ["a.png", "b.png"]
    assert rows.where(1).endswith("t.csv: line 5")
    assert "2 rows without any cell left out" in describe_remarks(rows.remarks)["table"]


def test_integers_beyond_64_bits_are_kept_digit_by_digit(tmp_path):
    numbers = [2**63, 2**63 + 1]
    pq.write_table(
        pa.table({"path": ["a", "b"], "n": pa.array(numbers, pa.uint64())}), tmp_path / "t.parquet"
    )
    (tmp_path / "t.jsonl").write_text(
        "".join(
            json.dumps({"path": name, "n": number}) + "\n" for name, number in zip("ab", numbers, strict=True)
        )
    )
    (tmp_path / "t.csv").write_text(f"path,n\na,{numbers[0]}\nb,{numbers[1]}\n")
    for file in ("t.parquet", "t.jsonl", "t.csv"):
        (name,) = Table().read(tmp_path / file).manifest.extra_columns
        assert Table().read(tmp_path / file).manifest.column(name) == [str(number) for number in numbers]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"path": "a", "x": "\\ud800"}', "line 2: column 'x' holds half of a character"),
        (b'{"path": "a", "x": "a\\u0000b"}', "line 2: column 'x' holds a NUL character"),
    ],
)
def test_halves_of_characters_and_nuls_are_one_line_with_row_and_column(tmp_path, line, message):
    (tmp_path / "t.jsonl").write_bytes(b'{"path": "b", "x": "c"}\n' + line + b"\n")
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "t.jsonl")


def test_text_that_is_not_utf_8_in_parquet_is_one_line_with_its_column(tmp_path):
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"path": ["a"], "x": broken}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'x' holds text that is not UTF-8"):
        read_rows(tmp_path / "t.parquet")


def test_a_packed_table_is_read(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"path,x\na.png,1\n"))
    assert read_rows(tmp_path / "t.csv.gz").columns["path"] == ["a.png"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2.0", None], [1, 2, None]),
        (["1", "2.5"], [1.0, 2.5]),
        (["007", "8"], ["007", "8"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["0.12345678901234567890", "1"], ["0.12345678901234567890", "1"]),
        (["TRUE", "False"], ["true", "false"]),
        (["1", "None"], [1, None]),
        (["mild", "None"], ["mild", "None"]),
        (["1e3", "2"], [1000, 2]),
        (["caf\u00e9", "cafe\u0301"], ["café", "café"]),
    ],
)
def test_a_column_is_numbers_where_each_of_its_cells_is_one(cells, expected):
    found, _ = numbers_or_text("x", pa.chunked_array([pa.array(cells, pa.string())]), CellRules())
    assert found.to_pylist() == expected
