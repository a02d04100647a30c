"""Which slices are shown: the middle of a sagittal stack, both sides of it, and axial slices from head to foot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.generation.slice_choice import StudySlices, slice_rule


def series(
    name: str, plane: str, description: str | None, places_mm: Sequence[float], *, stack: int = 0
) -> list[dict[str, Any]]:
    low, high = min(places_mm), max(places_mm)
    return [
        {
            "series_id": name,
            "plane": plane,
            "series_description": description,
            "stack": stack,
            "position_mm": float(place),
            "position_fraction": (place - low) / (high - low) if high > low else 0.5,
            "instance_number": number,
        }
        for number, place in enumerate(places_mm)
    ]


SAGITTAL_MM = [-20.0, -10.0, 0.0, 10.0, 20.0]
# Five discs from head to foot, three slices through each, the file's numbers upside down.
AXIAL_MM = [*range(-2, 1), *range(30, 33), *range(60, 63), *range(90, 93), *range(120, 123)]


def chosen(rows: list[dict[str, Any]], rule: str) -> list[tuple[str, str, float]]:
    table = pa.Table.from_pylist(rows)
    found = StudySlices(table, holder="store x").choose(np.arange(len(rows)), slice_rule(rule))
    return [(at.view, rows[at.row]["series_id"], rows[at.row]["position_mm"]) for at in found]


def study() -> list[dict[str, Any]]:
    return [
        *series("t1", "sagittal", "Sagittal T1", SAGITTAL_MM),
        *series("t2", "sagittal", "Sagittal T2/STIR", SAGITTAL_MM[::-1]),
        *series("ax", "axial", "Axial T2", AXIAL_MM),
    ]


def test_eight_are_the_middle_both_sides_and_one_of_each_disc_from_head_to_foot() -> None:
    assert chosen(study(), "8") == [
        ("sagittal-t2", "t2", 0.0),
        ("sagittal-t1", "t1", -10.0),
        ("sagittal-t1", "t1", 10.0),
        *(("axial-t2", "ax", place) for place in (121.0, 91.0, 61.0, 31.0, -1.0)),
    ]


def test_a_number_is_dealt_out_over_the_views() -> None:
    assert [str(slice_rule(str(number))) for number in (1, 2, 3, 4, 16)] == [
        "sagittal-t2=1",
        "sagittal-t2=1,axial-t2=1",
        "sagittal-t2=1,sagittal-t1=1,axial-t2=1",
        "sagittal-t2=1,sagittal-t1=1,axial-t2=2",
        "sagittal-t2=2,sagittal-t1=4,axial-t2=10",
    ]
    assert slice_rule("8") == slice_rule("axial-t2=5, sagittal-t1=2,sagittal-t2=1")


def test_no_slice_is_shown_twice_and_a_short_series_is_shown_whole() -> None:
    found = chosen(study(), "sagittal-t2=4,axial-t2=40")
    assert len(found) == len(set(found)) == 4 + len(AXIAL_MM)
    assert [place for view, _, place in found if view == "axial-t2"] == sorted(AXIAL_MM, reverse=True)
    # Spread over the middle fifth, where there is one; then whatever is nearest.
    assert sorted(place for view, _, place in found if view == "sagittal-t2") == [-10.0, 0.0, 10.0, 20.0]


def test_the_series_and_the_sagittal_stack_with_the_most_slices_count() -> None:
    rows = [
        *series("short", "sagittal", "Sagittal T2/STIR", [100.0, 101.0]),
        *series("long", "sagittal", "Sagittal T2/STIR", [7.0], stack=1),
        *series("long", "sagittal", "Sagittal T2/STIR", SAGITTAL_MM, stack=0),
        *series("again", "sagittal", "Sagittal T2/STIR", SAGITTAL_MM),
    ]
    assert chosen(rows, "sagittal-t2=1") == [("sagittal-t2", "long", 0.0)]
    assert chosen(rows[:2] + rows[8:], "sagittal-t2=1") == [("sagittal-t2", "again", 0.0)]


def test_axial_stacks_stand_from_head_to_foot() -> None:
    rows = [
        *series("ax", "axial", "Axial T2", [-40.0, -41.0, -39.0], stack=0),
        *series("ax", "axial", "Axial T2", [40.0, 42.0, 41.0], stack=1),
    ]
    assert [place for *_, place in chosen(rows, "axial-t2=2")] == [41.0, -40.0]


def test_views_are_told_by_echo_times_where_nothing_is_described() -> None:
    rows = [
        {**row, "echo_time_ms": echo_ms}
        for name, echo_ms in (("a", 11.0), ("b", 98.0), ("c", 45.0))
        for row in series(name, "sagittal", None, SAGITTAL_MM)
    ]
    assert chosen(rows, "8") == [
        ("sagittal-t2", "b", 0.0),
        ("sagittal-t1", "a", -10.0),
        ("sagittal-t1", "a", 10.0),
    ]


def test_slices_without_geometry_stand_by_their_numbers_and_description() -> None:
    rows = [
        {**row, "plane": None, "position_mm": None, "position_fraction": None, "stack": None}
        for row in series("t2", "sagittal", "Sagittal T2/STIR", SAGITTAL_MM)
    ]
    found = StudySlices(pa.Table.from_pylist(rows), holder="store x").choose(
        np.array([4, 2, 0, 1, 3]), slice_rule("sagittal-t2=1")
    )
    assert [at.row for at in found] == [2]


def test_a_store_that_does_not_say_its_views_is_refused() -> None:
    with pytest.raises(
        DataError, match="store x must say which slices are sagittal T1, sagittal T2 and axial T2"
    ):
        chosen(series("a", "coronal", "Coronal T2", SAGITTAL_MM), "8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "`images` must be from 1 to 256; found 0"),
        ("257", "found 257"),
        ("-1", "`images` must be a number, such as 8, or one for each view"),
        ("axial=5", "found 'axial=5'"),
        ("axial-t2=5,axial-t2=1", "found 'axial-t2=5,axial-t2=1'"),
        ("axial-t2=0", "found 'axial-t2=0'"),
        ("", "found ''"),
    ],
)
def test_rules_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        slice_rule(text)
