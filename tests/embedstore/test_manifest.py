import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import DataError
from embedstore.manifest import (
    CROP_COLUMNS,
    FIXED_COLUMNS,
    Record,
    crop_id,
    image_of_crop,
    manifest_from_columns,
    path_from_manifest,
    path_to_manifest,
)


def test_fixed_columns_come_first_and_missing_ones_are_empty():
    manifest = manifest_from_columns(
        {"anatomy": ["XR_HAND"], "path": ["a.png"], "image_id": ["a"]}, source="x"
    )
    assert manifest.table.column_names == [*FIXED_COLUMNS, "anatomy"]
    assert manifest.extra_columns == ["anatomy"]
    assert list(manifest.records()) == [Record("a", "a.png")]


def test_records_are_those_of_the_asked_rows():
    manifest = manifest_from_columns(
        {"image_id": list("abcd"), "path": list("abcd"), "frame": [0, 1, 2, 3]}, source="x"
    )
    assert [record.image_id for record in manifest.records(1, 3)] == ["b", "c"]
    assert [record.frame for record in manifest.records(2)] == [2, 3]
    assert manifest.take([3, 0]).column("image_id") == ["d", "a"]
    assert manifest.without(pa.array(["b", "zzz"])).column("image_id") == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_id": ["a"]}, "needs the column 'path'"),
        ({"image_id": ["a", "a"], "path": ["x", "y"]}, "must be unique; 1 occur more than once: 'a'"),
        ({"image_id": ["a", None], "path": ["x", "y"]}, "row 1 has no image_id"),
        ({"image_id": ["a", "b"], "path": ["x", ""]}, "row 1 has no path"),
        ({"image_id": ["a"], "path": ["/etc/passwd"]}, "must be relative to the root"),
        ({"image_id": ["a"], "path": ["b/../../c"]}, "stay below it"),
        ({"image_id": ["a"], "path": ["b"], "split": ["training"]}, "found 'training'$"),
        ({"image_id": ["a"], "path": ["b"], "frame": ["first"]}, "column 'frame' must hold int32"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(columns, message):
    with pytest.raises(DataError, match=f"labels.csv.*{message}"):
        manifest_from_columns(columns, source="labels.csv")


def test_the_same_records_give_the_same_bytes():
    columns = {"image_id": ["a", "b"], "path": ["x", "y"]}
    assert (
        manifest_from_columns(columns, source="x").to_parquet()
        == manifest_from_columns(columns, source="y").to_parquet()
    )


@given(
    st.one_of(
        st.binary(min_size=1, max_size=12),
        st.text(st.sampled_from("a\\\uf780\uf7ff\n é"), min_size=1, max_size=8).map(str.encode),
    ).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))
)
def test_every_file_name_comes_back_from_a_manifest(name):
    text = path_to_manifest(os.fsdecode(name))
    text.encode("utf-8")
    assert os.fsencode(path_from_manifest(Path("/images"), text)) == b"/images/" + name


@pytest.mark.parametrize("image_id", ["a/1.dcm", "a/1.dcm#3", "0f3c"])
def test_the_image_of_a_crop_is_found_by_its_id(image_id):
    assert image_of_crop(crop_id(image_id, "axial_t2,l4_l5,left")) == image_id
    assert image_of_crop(image_id) == image_id


def test_a_record_has_its_crop_or_none():
    cells = dict(
        zip(CROP_COLUMNS, [(1.5, None), (2.0, None), (40.0, None), (32.0, None), ("-c+r", None)], strict=True)
    )
    manifest = manifest_from_columns({"image_id": ["a", "b"], "path": ["a", "a"], **cells}, source="x")
    assert [record.crop for record in manifest.records()] == [(1.5, 2.0, 40.0, 32.0, "-c+r"), None]
    half = manifest_from_columns(
        {
            "image_id": ["a"],
            "path": ["a"],
            **{name: column[:1] for name, column in cells.items()} | {"crop_axes": [None]},
        },
        source="x",
    )
    with pytest.raises(DataError, match="must all be there or empty"):
        list(half.records())
