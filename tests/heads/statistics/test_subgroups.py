"""Which subgroups are formed, what their cells are called, and in which order."""

from __future__ import annotations

import numpy as np

from heads.statistics.subgroups import cells_of, in_order, listed, subgroups_of

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


def test_ages_are_cut_at_fixed_years_and_other_numbers_at_their_quartiles() -> None:
    ages = np.array(["000D", "017Y", "018Y", "39", "040Y", "059Y", "060Y", "079Y", "080Y", "", "006M"])
    assert cells_of("PatientAge_DICOM", ages).tolist() == [
        "0 to 17", "0 to 17", "18 to 39", "18 to 39", "40 to 59", "40 to 59", "60 to 79", "60 to 79",
        "80 and over", "unknown", "0 to 17",
    ]  # fmt: skip
    # Of 1 to 9 the quartiles are 3, 5 and 7; a number that is one begins a band.
    doses = np.array([str(number) for number in range(1, 10)] + ["several"])
    assert cells_of("dose", doses).tolist() == [
        "below 3", "below 3", "3 to 5", "3 to 5", "5 to 7", "5 to 7", "7 and over", "7 and over", "7 and over",
        "several",
    ]  # fmt: skip


def test_few_numbers_and_words_among_numbers_stay_as_they_are() -> None:
    strengths = np.array(["1.5", "3", "0.55", "1.5"])
    assert cells_of("field_strength_t", strengths).tolist() == strengths.tolist()
    sites = np.array([*map(str, range(12)), "clinic"])
    assert cells_of("site", sites).tolist() == sites.tolist()


def test_bands_are_those_of_all_units_and_stand_from_low_to_high() -> None:
    values = {"dose": np.array([str(number) for number in range(0, 200, 10)])}
    # Quartiles of 0, 10, ..., 190: 47.5, 95 and 142.5.
    found = [(group.cell, group.units.tolist()) for group in subgroups_of(["dose"], values, np.arange(8, 20))]
    assert found == [
        ("47.5 to 95", [0, 1]),
        ("95 to 142.5", [2, 3, 4, 5, 6]),
        ("142.5 and over", [7, 8, 9, 10, 11]),
    ]
    assert in_order(["80 and over", "unknown", "0 to 17", "below 3", "9.5 to 10", "10 to 11"]) == [
        "below 3", "0 to 17", "9.5 to 10", "10 to 11", "80 and over", "unknown",
    ]  # fmt: skip
