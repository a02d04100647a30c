"""Columns of a manifest: who belongs to which unit and patient, and which images speak for which target."""

from __future__ import annotations

import pyarrow as pa
import pytest

from embedstore.errors import DataError
from embedstore.queries.manifest_columns import (
    column_text,
    image_mask,
    own_unit_names,
    patient_names,
    unit_names,
)
from embedstore.task import ImageRule

TABLE = pa.table(
    {
        "image_id": ["i0", "i1", "i2", "i3"],
        "study_id": ["s0", "s0", "s1", None],
        "patient_id": [None, "p", None, None],
        "level": ["l4", None, "l4", "l5"],
        "echo": [1, 2, None, 2],
    }
)


def test_cells_are_text_and_what_is_not_there_is_empty() -> None:
    assert column_text(TABLE, "echo").tolist() == ["1", "2", "", "2"]
    assert column_text(TABLE, "absent").tolist() == [""] * 4


@pytest.mark.parametrize(
    ("unit", "names", "own"),
    [
        ("image", ["i0", "i1", "i2", "i3"], ["i0", "i1", "i2", "i3"]),
        ("study", ["s0", "s0", "s1", ""], ["s0", "s0", "s1", "i3"]),
        ("level", ["l4", "", "l4", "l5"], ["l4", "i1", "l4", "l5"]),
        ("study_id,level", ["s0|l4", "", "s1|l4", ""], ["s0|l4", "i1", "s1|l4", "i3"]),
        ("level,echo", ["l4|1", "", "", "l5|2"], ["l4|1", "i1", "i2", "l5|2"]),
    ],
)
def test_a_unit_is_named_by_its_columns_and_an_image_without_them_is_one_of_its_own(
    unit: str, names: list[str], own: list[str]
) -> None:
    assert unit_names(TABLE, unit).tolist() == names
    assert own_unit_names(TABLE, unit).tolist() == own


def test_a_value_that_would_make_two_keys_one_id_is_refused() -> None:
    table = pa.table({"study_id": ["a|b", "a"], "level": ["c", "b|c"]})
    with pytest.raises(DataError, match=r"study_id 'a\|b'"):
        unit_names(table, "study_id,level")
    assert unit_names(table, "study").tolist() == ["a|b", "a"]


@pytest.mark.parametrize(
    ("unit", "patients"),
    [
        ("image", ["only i0", "p", "only i2", "only i3"]),
        ("study", ["only s0", "p", "only s1", "only i3"]),
        ("study_id,level", ["only s0", "p", "only s1", "only i3"]),
        ("level", ["only s0", "p", "only s1", "only l5"]),
    ],
)
def test_unknown_patients_are_parted_by_study(unit: str, patients: list[str]) -> None:
    assert patient_names(TABLE, unit).tolist() == patients


def test_an_image_speaks_for_a_target_by_the_values_of_its_rule() -> None:
    assert image_mask(TABLE, (None, None)) is None
    mask = image_mask(TABLE, (None, ImageRule("level", ("l4", "")), ImageRule("echo", ("2",))))
    assert mask is not None
    assert mask.tolist() == [
        [True, True, False],
        [True, True, True],
        [True, True, False],
        [True, False, True],
    ]
