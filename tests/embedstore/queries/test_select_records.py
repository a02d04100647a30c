"""Records are left out by a column before anything is decoded, and it is said how many."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedstore.datasets.base import Collection
from embedstore.errors import DataError, UsageError
from embedstore.manifest import manifest_from_columns
from embedstore.queries.conditions import parse_conditions, select_records

LOCALIZER, AXIAL = "ORIGINAL\\PRIMARY\\LOCALIZER", "ORIGINAL\\PRIMARY\\AXIAL"
COLUMNS = {
    "image_id": ["a", "b", "c", "d"],
    "path": ["a", "b", "c", "d"],
    "patient_id": ["1", "1", "2", "3"],
    "image_type": [LOCALIZER, AXIAL, "DERIVED\\SECONDARY", None],
    "age": [53.0, 54.5, None, 53.0],
}


def kept(*texts):
    manifest = manifest_from_columns(COLUMNS, source="test")
    collection = Collection("test", Path(), manifest, (), {"images": 4, "patients": 3, "files": 4})
    selected = select_records(collection, parse_conditions(texts))
    return "".join(selected.manifest.column("image_id")), dict(selected.summary)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), "abcd"),
        (("image_type!=LOCALIZER",), "bcd"),
        (("image_type=LOCALIZER",), "a"),
        (("image_type=PRIMARY",), "ab"),
        ((f"image_type={AXIAL}",), "b"),
        (("image_type!=LOCALIZER", "image_type!=DERIVED"), "bd"),
        (("image_type=",), "d"),
        (("image_type!=",), "abc"),
        (("patient_id=1",), "ab"),
        (("patient_id!=1", "age=53"), "d"),
        (("age=53.0",), "ad"),
        (("age=54.5",), "b"),
        (("age!=53",), "bc"),
    ],
)
def test_conditions_leave_these_records(texts, expected):
    assert kept(*texts)[0] == expected


def test_the_summary_counts_what_is_left_and_what_each_condition_left_out():
    assert kept("image_type!=LOCALIZER", "patient_id=1")[1] == {
        "images": 1,
        "patients": 1,
        "left out by image_type!=LOCALIZER": 1,
        "left out by patient_id=1": 2,
        "images of the data set": 4,
        "files": 4,
    }


def test_impossible_conditions_are_refused():
    with pytest.raises(UsageError, match=r"COLUMN=VALUE, COLUMN!=VALUE, .*; found 'image_type'"):
        kept("image_type")
    with pytest.raises(UsageError, match="found '=CT'"):
        kept("=CT")
    with pytest.raises(UsageError, match=r"no column 'image_typ'; it has .*Did you mean 'image_type'"):
        kept("image_typ=LOCALIZER")
    with pytest.raises(
        DataError, match=r"patient_id=9 leaves none of 4 images; the column holds, for example, '1', '2', '3'"
    ):
        kept("patient_id=9")
