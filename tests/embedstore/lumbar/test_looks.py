"""Looks measure offsets along their own columns and rows, whatever way they are turned."""

import numpy as np
import pytest

from embedstore.errors import DataError
from embedstore.lumbar.looks import Looks
from embedstore.slices.planes import SlicePlanes


def looks_of(*orientations):
    n = len(orientations)
    planes = SlicePlanes(
        np.array(orientations, float), np.zeros((n, 3)), np.ones((n, 2)), np.full((n, 2), 4.0)
    )
    names = np.full(n, "canal_sagittal_t2", object)
    return Looks(np.arange(n), names, names, planes)


def test_offsets_along_columns_and_rows_by_hand():
    looks = looks_of((0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, 1, 0))
    offsets = np.array([[7.0, 2.0, 3.0], [7.0, 2.0, 3.0]])
    assert looks.in_plane_mm(offsets).tolist() == [[2.0, -3.0], [-7.0, 2.0]]
    assert looks.in_patient_mm(np.array([[2.0, -3.0], [-7.0, 2.0]])).tolist() == [[0, 2, 3], [7, 2, 0]]


def test_parts_of_other_lengths_and_unknown_planes_are_refused():
    looks = looks_of((0, 1, 0, 0, 0, -1))
    with pytest.raises(DataError, match=r"one length; found \[1, 2\]"):
        Looks(np.arange(2), looks.kinds, looks.series_ids, looks.planes)
    with pytest.raises(DataError, match="known plane"):
        looks_of((0, 0, 0, 0, 0, 0))
