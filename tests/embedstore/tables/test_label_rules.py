"""Labels: one class has one spelling, and what may be a class or nothing is asked."""

import pyarrow as pa
import pytest

from embedstore.errors import DataError
from embedstore.tables.cell_rules import CellRules
from embedstore.tables.label_rules import plain_number, read_labels
from embedstore.tables.remarks import describe_remarks
from embedstore.tables.rows import Rows


def labels(cells, rules=None):
    kind = None if all(isinstance(cell, float) for cell in cells) else pa.string()
    rows = read_labels(Rows("t.csv", pa.table({"x": pa.array(cells, kind)}), str), "x", rules or CellRules())
    return rows.column("x").to_pylist(), describe_remarks(rows.remarks).get("column x")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "1.0", "1e0", "2", "10"], ["1", "1", "1", "2", "10"]),
        (["0.50", ".5", "0.5", "-1"], ["0.5", "0.5", "0.5", "-1"]),
        (["yes", "YES", "yes", "No", "No", "no"], ["yes", "yes", "yes", "No", "No", "No"]),
        (["TRUE", "True", "false"], ["true", "true", "false"]),
        (["No  Finding", "No Finding", "No\u00a0Finding"], ["No Finding"] * 3),
        (["1", "0", "None"], ["1", "0", None]),
        (["none", "mild"], ["none", "mild"]),
        (["4A", "4a", "4A", "3"], ["4A", "4A", "4A", "3"]),
        ([1.0, 2.0, 10.0], ["1", "2", "10"]),
        (["01", "02"], ["01", "02"]),
        # Statistics programs write a point, ARFF a question mark, databases \N for nothing.
        (["1", "0", ".", "?", "-", "unknown"], ["1", "0", None, None, None, None]),
        (["yes", "yes", "y", "no", "n", "no"], ["yes", "yes", "yes", "no", "no", "no"]),
        (["TRUE", "1", "1", "0", "FALSE"], ["1", "1", "1", "0", "0"]),
        (["positive", "negative", "neg", "present"], ["positive", "negative", "neg", "present"]),
        (["-", "+", "++"], ["-", "+", "++"]),
        (["1", "2", "99", "55"], ["1", "2", "99", "55"]),
    ],
)
def test_a_class_has_one_spelling(cells, expected):
    assert labels(cells)[0] == expected


def test_what_was_read_as_one_class_is_counted():
    assert labels(["yes", "yes", "YES", "Yes"])[1] == (
        "2 values spelled otherwise read as one class: 'YES as yes', 'Yes as yes'"
    )
    assert labels(["yes", "no"])[1] is None


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["None", "Mild", "Severe", "None"], r"'None' \(2 rows\) beside 'Mild', 'Severe'"),
        (["1", "01", "2"], "may be one class: '01' and '1'"),
        (["non-small", "non small", "other"], "may be one class: 'non small' and 'non-small'"),
        (["grade_2", "grade\u20132", "other"], "may be one class: 'grade_2' and 'grade\u20132'"),
        (["Benign", "Benign.", "other"], "may be one class: 'Benign' and 'Benign.'"),
        (["no", "n\u043e", "yes"], "may be one class: 'no' and 'n\u043e'"),
        (["nódulo", "nodulo", "x"], "may be one class: 'nodulo' and 'nódulo'"),
        (
            ["yes", "no", "Unknown", "no"],
            r"'Unknown' \(1 row\): a class, or no label\? Name it with `missing`",
        ),
        (["yes", "no", "?", "?"], r"'\?' \(2 rows\): a class, or no label"),
        (
            ["0", "1", "999"],
            r"'999' \(1 row\) beside small numbers: a class, or no label\? Empty these cells",
        ),
    ],
)
def test_what_may_be_a_class_or_not_is_refused_unless_the_user_says_so(cells, message):
    with pytest.raises(DataError, match=message):
        labels(cells)
    assert labels(cells, CellRules(as_written=("x",)))[0] == cells


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.0", "1"), ("+1", "1"), ("1e2", "100"), ("-0", "0"), ("0.10", "0.1"), ("1_0", None), ("nan", None)],
)
def test_numbers_have_one_spelling(text, number):
    assert plain_number(text) == number
