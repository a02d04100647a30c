"""Columns that follow from others: where an image lies, and values side by side."""

from __future__ import annotations

import pyarrow as pa
import pytest

from embedstore.errors import DataError
from embedstore.queries.derived_columns import can_say, derived_text, places_of_images
from embedstore.queries.manifest_columns import column_text


def test_a_place_is_a_kind_of_series_and_an_eighth_of_its_stack() -> None:
    table = pa.table(
        {
            "study_id": ["a"] * 4 + ["b"] * 2,
            "series_description": ["Sagittal T1"] * 3 + [None] + ["Axial T2"] * 2,
            "plane": ["sagittal"] * 4 + ["axial"] * 2,
            "position_fraction": [0.0, 0.49, 1.0, 0.3, None, 0.7],
        }
    )
    assert places_of_images(table).tolist() == [
        "Sagittal T1 1/8",
        "Sagittal T1 4/8",
        "Sagittal T1 8/8",
        # A kind of one slice lies in its middle.
        "sagittal 5/8",
        "Axial T2",
        "Axial T2 5/8",
    ]


def test_without_a_description_plane_and_echo_time_name_the_series() -> None:
    table = pa.table(
        {
            "study_id": ["a"] * 4,
            "plane": ["sagittal", "sagittal", "sagittal", None],
            "echo_time_ms": [102.0, 9.0, 9.0, 9.0],
            "repetition_time_ms": [3000.0, 600.0, 3000.0, 600.0],
            "position_fraction": [0.5, 0.5, 0.5, 0.5],
        }
    )
    assert places_of_images(table).tolist() == ["sagittal T2 5/8", "sagittal T1 5/8", "sagittal 5/8", ""]


def test_values_of_several_columns_stand_side_by_side() -> None:
    table = pa.table({"crop": ["axial_t2", None], "level": ["l1_l2", "l1_l2"], "other": ["a|b", "c"]})
    assert column_text(table, "crop,level").tolist() == ["axial_t2|l1_l2", ""]
    assert derived_text(table, "crop,side") is None
    assert column_text(table, "crop,side").tolist() == ["", ""]
    assert can_say("crop,level", ["crop", "level"])
    assert not can_say("place", ["crop"])
    with pytest.raises(DataError, match="must not hold it"):
        column_text(table, "other,level")
