"""Lumbar phantoms whose spines do not lie in the middle of their pictures."""

import numpy as np
import pytest

from embedstore.errors import DataError, UsageError
from embedstore.phantoms import lumbar


def middles(index, off_centre_mm):
    study = lumbar._plan_study(index, 0, "train", off_centre_mm)
    return study, [
        np.mean([(place.corner_mm + place.points_mm()[-1, -1]) / 2 for _, place in series.slices], axis=0)
        for series in study.series
        if series.description != "Axial T2"
    ]


def test_sagittal_series_are_aimed_off_and_nothing_else_changes():
    apart = []
    for index in range(40):
        plain, usual = middles(index, 0.0)
        off, moved = middles(index, 20.0)
        apart += [one - other for one, other in zip(moved, usual, strict=True)]
        np.testing.assert_array_equal(plain.labels, off.labels)
        assert [series.series_id for series in plain.series] == [series.series_id for series in off.series]
    x, y, z = np.std(apart, axis=0)
    assert x < 1e-3
    assert 4 < y < 9
    assert 15 < z < 25


def test_a_phantom_says_how_far_its_series_are_aimed_off(tmp_path):
    written = lumbar.write_phantom_lumbar(tmp_path / "a", studies=1, off_centre_mm=12.5)
    said = [path.read_text() for path in written.root.iterdir() if path.is_file()]
    assert sum("studies=1 seed=0 off_centre_mm=12.5" in text for text in said) == 1
    # Another spread is another phantom, which is never written over this one.
    with pytest.raises(DataError, match="something else"):
        lumbar.write_phantom_lumbar(tmp_path / "a", studies=1)


def test_a_negative_spread_is_refused(tmp_path):
    with pytest.raises(UsageError, match="off_centre_mm at least 0; found 1, 0 and -1"):
        lumbar.write_phantom_lumbar(tmp_path, studies=1, off_centre_mm=-1)
