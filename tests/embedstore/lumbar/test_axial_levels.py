"""Axial slices and the levels that their planes pass through."""

import numpy as np

from embedstore.lumbar.axial_levels import axial_levels
from embedstore.slices.planes import SlicePlanes

POINTS = np.array([[0.0, 30.0, 68.0], [0, 32, 34], [0, 33, 0], [0, 32, -34], [0, 28, -68]])


def axial(z_mm, *, tilt_degrees=0.0, y_mm=30.0, side_px=128):
    """Slices around (0, y, z), tilted so that their back lies lower."""
    tilt = np.radians(tilt_degrees)
    down = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    z = np.atleast_1d(np.asarray(z_mm, float))
    middle = np.stack([np.zeros(len(z)), np.full(len(z), y_mm), z], axis=1)
    half = (side_px - 1) / 2
    corner = middle - half * (np.array([1.0, 0, 0]) + down)
    n = len(z)
    return SlicePlanes(
        np.tile([1.0, 0, 0, *down], (n, 1)), corner, np.ones((n, 2)), np.full((n, 2), float(side_px))
    )


def joined(*planes):
    return SlicePlanes(
        *(
            np.concatenate([getattr(entry, name) for entry in planes])
            for name in ("orientations", "positions_mm", "spacings_mm", "shapes_px")
        )
    )


def test_the_nearest_level_wins_and_five_millimetres_are_the_limit():
    found = axial_levels(axial([71, 63.5, 62.9, 33, -34, -80]), POINTS)
    assert found.level.tolist() == [0, 0, -1, 1, 3, -1]
    # Of L1/L2's point from the plane at z = 71 along its normal, which points to the head.
    np.testing.assert_allclose(found.distance_mm[:4], [-3, 4.5, 5.1, 1])


def test_a_tilted_stack_is_judged_by_its_planes():
    """A plane through L5/S1's point, tilted by 20 degrees, passes 24 mm lower at the image's back edge."""
    stacks = joined(axial([0.0, 34.0]), axial([-68.0], tilt_degrees=20, y_mm=28.0))
    found = axial_levels(stacks, POINTS)
    assert found.level.tolist() == [2, 1, 4]
    np.testing.assert_allclose(found.distance_mm[2], 0, atol=1e-9)


def test_a_point_beside_the_image_does_not_count():
    found = axial_levels(axial([0.0], y_mm=200.0), POINTS)
    assert found.level.tolist() == [-1]
    assert np.isnan(found.distance_mm).all()


def test_levels_that_were_not_found_and_slices_without_geometry_play_no_part():
    points = POINTS.copy()
    points[2] = np.nan
    planes = axial([0.0, 34.0])
    planes.orientations[1] = np.nan
    found = axial_levels(planes, points)
    assert found.level.tolist() == [-1, -1]
    assert axial_levels(planes, np.zeros((0, 3))).level.tolist() == [-1, -1]
