"""Which subgroups are formed, what their cells are called, and in which order."""

from __future__ import annotations

import numpy as np

from heads.statistics.subgroups import listed, subgroups_of

VALUES = {
    "side": np.array(["right", "", "left", "right", "unknown", "left"]),
    "site": np.array(["b", "b", "a", "a", "b", ""]),
    "unasked": np.array(["x"] * 6),
}


def _found(columns: list[str], units: np.ndarray) -> list[tuple[str, str, list[int]]]:
    return [(column, cell, rows.tolist()) for column, cell, rows in subgroups_of(columns, VALUES, units)]


def test_columns_are_those_of_the_task_in_its_order_and_cells_are_sorted_with_unknown_last() -> None:
    assert _found(["site", "absent", "side"], np.arange(6)) == [
        ("site", "a", [2, 3]),
        ("site", "b", [0, 1, 4]),
        ("site", "unknown", [5]),
        ("side", "left", [2, 5]),
        ("side", "right", [0, 3]),
        # An empty cell and one that says unknown are the same cell; apart, one would replace the other.
        ("side", "unknown", [1, 4]),
    ]


def test_rows_count_within_the_wanted_units() -> None:
    mask = np.array([False, True, False, True, True, False])
    expected = [("side", "right", [1]), ("side", "unknown", [0, 2])]
    assert _found(["side"], mask) == expected
    assert _found(["side"], np.flatnonzero(mask)) == expected


def test_what_a_run_holds_is_listed_in_that_order_too() -> None:
    held = {"side": {"unknown": 1, "left": 2, "zygoma": 3}, "age": {"old": 4}, "site": {"a": 5}}
    found = listed(held, ["site", "absent", "side"])
    assert list(found) == ["site", "side"]
    assert list(found["side"].items()) == [("left", 2), ("zygoma", 3), ("unknown", 1)]
