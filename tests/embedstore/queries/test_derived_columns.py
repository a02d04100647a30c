"""Columns that follow from others: where an image lies, and values side by side."""

from __future__ import annotations

import numpy as np
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
        "sagittal T1 1/8",
        "sagittal T1 4/8",
        "sagittal T1 8/8",
        # A kind of one slice lies in its middle.
        "sagittal 5/8",
        "axial T2",
        "axial T2 5/8",
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


def test_stacks_of_one_kind_are_one_way_from_feet_to_head_whatever_their_tilt() -> None:
    """Two axial series of two slices, the lower one tilted by 20 degrees and listed first; millimetres decide."""
    tilt = np.deg2rad(20)
    table = pa.table(
        {
            "study_id": ["a"] * 4,
            "plane": ["axial"] * 4,
            "position_fraction": [0.0, 1.0, 0.0, 1.0],
            "image_orientation": [f"1\\0\\0\\0\\{np.cos(tilt)}\\{np.sin(tilt)}"] * 2
            + ["1\\0\\0\\0\\1\\0"] * 2,
            # Corners are 100 mm before the centre along columns and rows, which lies at z = 0, 4, 36 and 40.
            "image_position": [f"-100\\{-100 * np.cos(tilt)}\\{z - 100 * np.sin(tilt)}" for z in (0, 4)]
            + [f"-100\\-100\\{z}" for z in (36, 40)],
            "row_spacing_mm": [1.0] * 4,
            "column_spacing_mm": [1.0] * 4,
            "image_rows": [201] * 4,
            "image_columns": [201] * 4,
        }
    )
    assert places_of_images(table).tolist() == ["axial 1/8", "axial 1/8", "axial 8/8", "axial 8/8"]


def test_values_of_several_columns_stand_side_by_side() -> None:
    table = pa.table({"crop": ["axial_t2", None], "level": ["l1_l2", "l1_l2"], "other": ["a|b", "c"]})
    assert column_text(table, "crop,level").tolist() == ["axial_t2|l1_l2", ""]
    assert derived_text(table, "crop,side") is None
    assert column_text(table, "crop,side").tolist() == ["", ""]
    assert can_say("crop,level", ["crop", "level"])
    assert not can_say("place", ["crop"])
    with pytest.raises(DataError, match="must not hold it"):
        column_text(table, "other,level")
