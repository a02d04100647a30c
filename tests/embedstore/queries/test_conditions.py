"""Conditions: what they mean, and that whatever is shown can be typed back."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import UsageError
from embedstore.queries.conditions import condition_text, none_left, parse_conditions, rows_where

TABLE = pa.table(
    {
        "patient_id": ["007", "7", "8", None],
        "age": [53.0, 54.5, None, float("nan")],
        "age_text": ["53", "54.50", "", None],
        "site": ["01", "1", "2", "2"],
        "view": ["AP", "PA", "lateral, left", ""],
        "serial": pa.array([2**53, 2**53 + 1, 3, None], pa.int64()),
        "burned": [True, False, None, True],
        "a=b": ["x", "y", "x", "x"],
    }
)


def found(*where: str) -> list[int]:
    return np.flatnonzero(rows_where(TABLE, parse_conditions(where), holder="the table")).tolist()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("age=53.0", [0]),
        ("age=53", [0]),
        ("age=5.3e1", [0]),
        ("age==53", [0]),
        ("age = 53", [0]),
        ("age!=53", [1, 2, 3]),
        ("age=", [2]),
        ("age=nan", [3]),
        ("age>53", [1]),
        ("age>=53", [0, 1]),
        ("age<54.5", [0]),
        ("age <= 54.5", [0, 1]),
        ("age in 53,54.5", [0, 1]),
        ("age in 1", []),
        ("view~ap", [0]),
        ("view ~ LEFT", [2]),
        ("age~4.", [1]),
        ("view~, l", [2]),
        ("view~none", []),
        # Text of a table without types: numbers where every cell is one.
        ("age_text=53.0", [0]),
        ("age_text=54.5", [1]),
        ("age_text>53", [1]),
        ("age_text=", [2, 3]),
        # Ids and codes are names.
        ("patient_id=7", [1]),
        ("patient_id=007", [0]),
        ("site=1", [1]),
        ("site=01", [0]),
        ("view=lateral, left", [2]),
        ('view in AP,"lateral, left"', [0, 2]),
        ("view in AP, PA", [0, 1]),
        ('view in "",AP', [0, 3]),
        ("serial=9007199254740993", [1]),
        ("serial=9007199254740993.0", [1]),
        ("serial>9007199254740992", [1]),
        ("burned=true", [0, 3]),
        ("burned=True", [0, 3]),
        ('"a=b"=x', [0, 2, 3]),
    ],
)
def test_a_condition_finds_these_rows(where: str, rows: list[int]) -> None:
    assert found(where) == rows


def test_a_mapping_says_equal_and_several_conditions_hold_together() -> None:
    both = parse_conditions({"age": "53", "view": "AP"})
    assert rows_where(TABLE, both, holder="t").tolist() == [True, False, False, False]
    assert found("age>=53", "view!=AP") == [1]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("age", r"`where` takes COLUMN=VALUE, .*; found 'age'"),
        ("=3", r"found '=3'"),
        ("age in ", r"found 'age in '"),
        ("age>old", r"after > must stand a number; found 'old'"),
        ("view>3", r"column 'view' holds words \('AP', 'PA', .*\), which are neither smaller nor larger"),
        ("ages=3", r"the table has no column 'ages'; it has .*Did you mean 'age'"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(where: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        found(where)


def test_one_text_is_no_list_of_conditions() -> None:
    with pytest.raises(UsageError, match="takes a list of conditions; found the text 'age=3'"):
        parse_conditions("age=3")


def test_a_value_that_nothing_has_is_told_from_those_there_are() -> None:
    assert none_left(TABLE, parse_conditions(["age>50", "view=lateral left"])) == (
        "`where` view=lateral left leaves none of 4 images; the column holds, for example, '', 'AP', 'PA', "
        "'lateral, left'. Did you mean 'lateral, left'?"
    )
    assert none_left(TABLE, parse_conditions(["age>50"])) == ""


CELLS = st.one_of(
    st.text(min_size=1),
    st.text(alphabet=' ,"=!<>~ina', min_size=1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
)


@given(
    column=st.text(alphabet=' ,"=!<>~inab_1', min_size=1).filter(lambda text: text.strip() != ""),
    cell=CELLS,
    operator=st.sampled_from(["=", "in", "~"]),
)
def test_what_is_shown_can_be_typed_back(column: str, cell: object, operator: str) -> None:
    text = condition_text(column, cell, operator=operator)
    (condition,) = parse_conditions([text])
    assert condition.column == column
    assert condition.holds(cell)
    table = pa.table({column: [cell]})
    assert rows_where(table, [condition], holder="the table").tolist() == [True]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_an_order_is_that_of_the_numbers(cell: float, bound: float) -> None:
    for sign, expected in (
        ("<", cell < bound),
        ("<=", cell <= bound),
        (">", cell > bound),
        (">=", cell >= bound),
    ):
        (condition,) = parse_conditions([f"age{sign}{bound!r}"])
        assert condition.holds(cell) == expected
    assert not any(condition.holds(None) for condition in parse_conditions(["age<0", "age>=0"]))
    assert math.isfinite(cell)
