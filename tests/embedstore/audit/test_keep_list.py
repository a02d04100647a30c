"""The list of an audit, as people get and edit it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from embedstore.audit.findings import Audit, Finding
from embedstore.audit.keep_list import read_keep_list, write_keep_list
from embedstore.errors import DataError

AUDIT = Audit(
    findings=[
        Finding(kind="identical-pixels", image_ids=("a, b", "c"), why="same", leave_out=("c",)),
        Finding(kind="outlier", image_ids=("c",), why="far"),
        Finding(kind="inverted", image_ids=("d",), why="a negative"),
    ],
    images=9,
    pictures=0,
)


def test_each_image_stands_once_with_all_that_was_found() -> None:
    counts = write_keep_list("keep.csv", AUDIT)
    with Path("keep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image_id"], row["keep"], row["kinds"], row["why"]) for row in rows] == [
        ("a, b", "yes", "identical-pixels", "same"),
        ("c", "no", "identical-pixels outlier", "same; far"),
        ("d", "yes", "inverted", "a negative"),
    ]
    assert counts == {"yes": 2, "no": 1}
    assert read_keep_list("keep.csv").left_out == {"c"}
    edited = Path("keep.csv").read_text().replace("d,yes", "d, No ").replace("c,no", "c,yes")
    Path("keep.csv").write_text(edited)
    assert read_keep_list("keep.csv").left_out == {"d"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,why\na,b\n", "needs the columns image_id and keep; found image_id, why"),
        ("image_id,keep\na,yes\nb,maybe\n", "line 3: keep must be yes or no; found 'maybe'"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, message: str) -> None:
    Path("k.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_keep_list("k.csv")
    with pytest.raises(DataError, match=r"gone.csv cannot be read"):
        read_keep_list("gone.csv")
