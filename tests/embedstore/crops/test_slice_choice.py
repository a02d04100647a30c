"""Which slices show a point, on stacks whose places are known."""

import numpy as np
import pytest

from embedstore.crops.slice_choice import BESIDE, NO_SLICE, SeriesSlices
from embedstore.slices.planes import SlicePlanes

SAGITTAL = (0, 1, 0, 0, 0, -1)
AXIAL = (1, 0, 0, 0, 1, 0)


def series(orientation, positions, *, stacks=None, shape=(50, 40), spacing=(1.0, 2.0)):
    n = len(positions)
    return SeriesSlices(
        SlicePlanes(
            np.tile(np.array(orientation, float), (n, 1)),
            np.array(positions, float),
            np.tile(spacing, (n, 1)),
            np.tile(np.array(shape, float), (n, 1)),
        ),
        np.zeros(n, np.int64) if stacks is None else np.array(stacks),
    )


def sagittal(*x, **more):
    return series(SAGITTAL, [(value, 0, 0) for value in x], **more)


def shown(slices, point, *, neighbours=1, mirrored=False):
    (found,) = slices.show(np.array([point], float), neighbours=neighbours, mirrored=[mirrored])
    return found if isinstance(found, str) else [(at.row, at.offset, at.distance_mm) for at in found]


POINT = (1.0, 20.0, -10.0)  # column 10 of 2 mm, row 10 of 1 mm


def test_the_nearest_slice_and_its_neighbours_are_shown_by_place():
    slices = sagittal(-8, -4, 0, 4, 8)
    assert shown(slices, POINT) == [(1, -1, 5.0), (2, 0, 1.0), (3, 1, 3.0)]
    assert shown(slices, POINT, neighbours=0) == [(2, 0, 1.0)]
    assert [row for row, *_ in shown(slices, POINT, neighbours=9)] == [0, 1, 2, 3, 4]
    (found,) = slices.show(np.array([POINT]), neighbours=0, mirrored=[False])
    assert (found[0].column_px, found[0].row_px) == (10.0, 10.0)


def test_the_order_of_the_files_changes_nothing():
    assert shown(sagittal(4, 0, 8, -4, -8), POINT) == [(3, -1, 5.0), (1, 0, 1.0), (0, 1, 3.0)]


def test_offsets_grow_to_the_patients_left_and_to_the_head_whatever_the_normal():
    turned = series((0, -1, 0, 0, 0, -1), [(x, 60, 0) for x in (-4, 0, 4)])
    assert shown(turned, POINT) == [(0, -1, 5.0), (1, 0, 1.0), (2, 1, 3.0)]
    # Exchanged columns and rows: the normal points to the feet.
    axial = series((0, 1, 0, 1, 0, 0), [(0, 0, z) for z in (6, 2, -2)])
    assert [offset for _, offset, _ in shown(axial, (20, 20, 1.0))] == [-1, 0, 1]
    assert [row for row, *_ in shown(axial, (20, 20, 1.0))] == [2, 1, 0]


def test_a_slice_farther_than_five_millimetres_shows_something_else():
    assert shown(sagittal(6.0, 10.0), POINT)[0] == (0, 0, 5.0)
    assert shown(sagittal(6.1, 10.0), POINT) == NO_SLICE


def test_a_point_beside_the_picture_is_not_shown():
    assert shown(sagittal(0), (0, 79.0, -49.4)) == [(0, 0, 0.0)]  # the last half pixel
    assert shown(sagittal(0), (0, 79.1, -10)) == BESIDE
    assert shown(sagittal(0), (0, -1.1, -10)) == BESIDE
    assert shown(sagittal(0), (0, 20, -49.6)) == BESIDE


def test_the_nearest_slice_of_several_stacks_wins_and_neighbours_are_its_own():
    slices = sagittal(0, 4, 8, 1.2, 5.2, stacks=[0, 0, 0, 1, 1])
    assert shown(slices, POINT) == [(3, 0, pytest.approx(0.2)), (4, 1, pytest.approx(4.2))]


def test_neighbours_do_not_leap_into_the_next_slab():
    slabs = series(AXIAL, [(0, 0, z) for z in (-38, -34, -30, -4, 0, 4, 30, 34, 38)])
    assert [row for row, *_ in shown(slabs, (20, 20, 4.0), neighbours=3)] == [3, 4, 5]
    alone = series(AXIAL, [(0, 0, z) for z in (-34, 0, 34)])
    assert [row for row, *_ in shown(alone, (20, 20, 1.0))] == [1]


def test_slices_at_one_place_are_shown_once():
    twice = sagittal(0, 0, 4, 4, -4, -4)
    assert [row for row, *_ in shown(twice, POINT)] == [4, 0, 2]


def test_of_two_slices_equally_near_a_mirrored_patient_has_the_mirrored_one():
    slices = sagittal(-6, -2, 2, 6)
    assert shown(slices, (0, 20, -10), neighbours=0) == [(1, 0, 2.0)]
    assert shown(slices, (0, 20, -10), neighbours=0, mirrored=True) == [(2, 0, 2.0)]


def test_many_points_are_projected_at_once():
    slices = sagittal(-8, -4, 0, 4, 8)
    points = np.array([POINT, (7.5, 20, -10), (60, 0, 0)], float)
    found = slices.show(points, neighbours=0, mirrored=[False] * 3)
    assert [at if isinstance(at, str) else at[0].row for at in found] == [2, 4, NO_SLICE]
