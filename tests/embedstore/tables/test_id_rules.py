"""Ids and labels: no spelling splits one patient or one class, and none is merged by guessing."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.datasets.table import Table
from embedstore.errors import DataError


def table(folder, text):
    path = folder / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


def of_ids(folder, ids, **options):
    lines = [f"{row}.png,{cell}" for row, cell in enumerate(ids)]
    path = table(folder, "\n".join(["path,patient_id", *lines]) + "\n")
    collection = Table(**options).read(path)
    return collection.manifest.column("patient_id"), collection.summary.get("column patient_id")


@pytest.mark.parametrize(
    ("ids", "expected", "said"),
    [
        (["1 ", " 1", "1"], ["1", "1", "1"], "2 values had blanks, trimmed"),
        (["\u200bA\u00a0", "A", "\ufeffA"], ["A", "A", "A"], "2 values had blanks, trimmed"),
        (["53.0", "54", "NA"], ["53", "54", None], "1 value such as '53.0' written as whole numbers"),
        (["1e+05", "99999"], ["100000", "99999"], "1 value such as '1e+05' written as whole numbers"),
        (["M\u00fc", "Mu\u0308"], ["Mü", "Mü"], "1 value in decomposed Unicode, composed (NFC)"),
        (
            ["NA", "N/A", "nan", "<NA>", "null", "#N/A", "P"],
            [None] * 6 + ["P"],
            "6 values 'NA', 'N/A', 'nan' and 3",
        ),
        (['"=""007"""', '"=""008"""'], ["007", "008"], "written as a formula"),
        (
            ["\\N", "(null)", "[NULL]", "not available", "P"],
            [None] * 4 + ["P"],
            "4 values '\\\\N', '(null)', '[NULL]' and 1",
        ),
        (["-", "?", "...", "P-1"], [None, None, None, "P-1"], "3 values '-', '?', '...' taken as missing"),
        ([".", ".", "7"], [None, None, "7"], "2 values '.' taken as missing"),
        (["'007", "'008"], ["007", "008"], "2 values stood behind an apostrophe, taken off"),
        (["'P1'", "'P2'", "NULL"], ["P1", "P2", None], "2 values stood in single quotes, taken off"),
        (["'P1'", "P2'"], ["'P1'", "P2'"], ""),
        (["unknown", "P1"], ["unknown", "P1"], ""),  # of one row alone: no rows are put together
        (["1e5", "99999"], ["1e5", "99999"], ""),  # hexadecimal as likely as not
        (["1.5", "1.50x", "2.0"], ["1.5", "1.50x", "2.0"], ""),
    ],
)
def test_ids_are_spelled_by_one_rule_and_it_is_said(tmp_path, ids, expected, said):
    found, words = of_ids(tmp_path, ids)
    assert found == expected
    assert said in (words or "")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["007", "7", "7"], r"spelled differently: '007' \(1 row\) and '7' \(2 rows\)"),
        (["P1", "p1"], "'P1' .1 row. and 'p1'"),
        (["P-1", "P\u20131"], "'P-1' .1 row. and 'P\u20131'"),
        (["P-1", "P_1"], "'P-1' .1 row. and 'P_1'"),
        (["A1", "\u04101"], "'A1' .1 row. and '\u04101'"),  # a Cyrillic A
        (["'001", "001"], "\"'001\" .1 row. and '001'"),
        (
            ["unknown", "unknown", "P1"],
            r"'unknown' \(2 rows\): one id, or none known\? Name it with `missing` 'unknown'",
        ),
        (["None", "None", "P1"], r"'None' \(2 rows\): one id, or none known"),
        (["1.0x", "P01", "P1"], "'P01' .1 row. and 'P1'"),
        (["1.23457E+11", "1.23458E+11"], "line 2: .* in the short form of a spreadsheet, which drops digits"),
    ],
)
def test_ids_that_may_be_one_are_refused_unless_they_are_taken_as_written(tmp_path, ids, message):
    with pytest.raises(DataError, match=message):
        of_ids(tmp_path, ids)
    assert of_ids(tmp_path, ids, as_written=["patient_id"])[0] == ids


def test_decimals_of_uids_and_case_within_other_words_are_no_suspects(tmp_path):
    ids = ["1.2.840.10.1", "1.2.840.1.1", "a.05", "a.5"]
    assert of_ids(tmp_path, ids)[0] == ids


def test_float_ids_of_parquet_are_whole_numbers_and_refused_where_digits_were_lost(tmp_path):
    frame = pd.DataFrame({"path": ["a", "b"], "patient_id": [53.0, None]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert Table().read(tmp_path / "t.parquet").manifest.column("patient_id") == ["53", None]
    pq.write_table(pa.table({"path": ["a"], "patient_id": [2.0**53 + 2]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"row 0: .*floating-point numbers"):
        Table().read(tmp_path / "t.parquet")


def test_study_ids_of_two_patients_may_differ_in_zeros(tmp_path):
    path = table(tmp_path, "path,patient_id,study_id\n1,A,01\n2,B,1\n3,C,7\n4,D,8\n")
    assert Table().read(path).manifest.column("study_id") == ["01", "1", "7", "8"]
    path = table(tmp_path, "path,patient_id,study_id\n1,A,01\n2,A,1\n3,C,7\n")
    with pytest.raises(DataError, match=r"'01' .1 row. and '1'"):
        Table().read(path)
