"""Slices are placed as DICOM PS3.3 C.7.6.2.1.1 says: by hand-worked cases and against nibabel."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine

from embedstore.errors import ImageRefused, Reason
from embedstore.geometry import (
    directions,
    patient_mm_to_pixel,
    pixel_to_patient_mm,
    planes,
    positions_along_mm,
    slice_centres_mm,
    slice_normal,
    slice_order,
    split_stacks,
    stack_axis,
    valid_geometry,
)
from embedstore.slices.placement import place_slices
from tests.paths import PROJECT

VOLUME = PROJECT.parent / "shared" / "data" / "t2_lumbar.nii.gz"
AXIAL = [1.0, 0, 0, 0, 1, 0]
SAGITTAL = [0.0, 1, 0, 0, 0, -1]
CORONAL = [1.0, 0, 0, 0, 0, -1]


def tilted_axial(degrees: float) -> list[float]:
    """Axial rows turned about the patient's x axis."""
    angle = np.radians(degrees)
    return [1, 0, 0, 0, np.cos(angle), np.sin(angle)]


def test_normal_is_the_column_direction_cross_the_row_direction():
    np.testing.assert_allclose(
        slice_normal([AXIAL, SAGITTAL, CORONAL]), [[0, 0, 1], [-1, 0, 0], [0, 1, 0]], atol=1e-15
    )


def test_plane_is_named_after_the_axis_that_the_normal_follows():
    assert planes([AXIAL, SAGITTAL, CORONAL]).tolist() == ["axial", "sagittal", "coronal"]


@pytest.mark.parametrize(
    ("degrees", "plane"),
    [(0, "axial"), (40, "axial"), (44.9, "axial"), (45, "oblique"), (45.1, "coronal"), (90, "coronal")],
)
def test_tilted_slice_stays_axial_up_to_45_degrees(degrees, plane):
    assert planes(tilted_axial(degrees)) == plane


def test_normal_that_no_axis_dominates_is_oblique():
    # Columns along (1,-1,0), rows along (1,1,-2): the normal is (1,1,1)/sqrt(3), 54.7 degrees off each axis.
    columns, rows = np.array([1, -1, 0]) / np.sqrt(2), np.array([1, 1, -2]) / np.sqrt(6)
    assert planes([*columns, *rows]) == "oblique"


def test_pixel_positions_follow_the_dicom_equation():
    # Column 3, row 2; rows 0.5 mm apart, columns 0.25 mm apart; columns run to the back, rows to the feet.
    point = pixel_to_patient_mm([3, 2], SAGITTAL, [7, -20, 100], [0.5, 0.25])
    np.testing.assert_allclose(point, [7, -20 + 3 * 0.25, 100 - 2 * 0.5])


def test_pixels_and_millimetres_round_trip_for_oblique_slices_with_rounded_cosines():
    rng = np.random.default_rng(0)
    frames = np.linalg.qr(rng.normal(size=(50, 3, 3)))[0]
    orientations = (
        frames[:, :, :2].transpose(0, 2, 1).reshape(50, 6).round(3)
    )  # no longer quite perpendicular
    positions = rng.uniform(-200, 200, (50, 3))
    spacings = rng.uniform(0.2, 2, (50, 2))
    points = rng.uniform(-50, 600, (50, 2))
    patient = pixel_to_patient_mm(points, orientations, positions, spacings)
    back, distance = patient_mm_to_pixel(patient, orientations, positions, spacings)
    np.testing.assert_allclose(back, points, atol=1e-8)
    np.testing.assert_allclose(distance, 0, atol=1e-9)


def test_point_off_the_slice_lands_on_its_foot_with_a_signed_distance():
    pixel, distance = patient_mm_to_pixel([1, 2, 8], AXIAL, [0, 0, 5], [0.5, 0.25])
    np.testing.assert_allclose(pixel, [4, 4])
    assert distance == pytest.approx(3)


def test_one_slice_takes_many_points():
    points = np.array([[0, 0], [1, 0], [0, 1]])
    patient = pixel_to_patient_mm(points, AXIAL, [0, 0, 0], [2, 3])
    np.testing.assert_allclose(patient, [[0, 0, 0], [3, 0, 0], [0, 2, 0]])


def test_slice_order_ignores_the_order_of_files():
    z = np.array([30.0, -10, 20, 0])
    positions = np.stack([np.zeros(4), np.zeros(4), z], axis=1)
    assert slice_order([AXIAL] * 4, positions).tolist() == [1, 3, 2, 0]


def test_mirrored_acquisition_is_ordered_the_same_way():
    # SAGITTAL's normal points right, this one's to the left; both axes must point left.
    mirrored = [0.0, -1, 0, 0, 0, -1]
    np.testing.assert_allclose(stack_axis([SAGITTAL]), [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(stack_axis([mirrored]), [1, 0, 0], atol=1e-15)
    positions = [[5.0, 0, 0], [-5, 0, 0]]
    assert slice_order([SAGITTAL] * 2, positions).tolist() == slice_order([mirrored] * 2, positions).tolist()


def test_slices_at_one_position_keep_their_order():
    assert slice_order([AXIAL] * 3, [[0, 0, 1], [0, 0, 0], [0, 0, 1]]).tolist() == [1, 0, 2]


def test_position_is_the_projection_on_the_axis():
    # A normal tilted by 30 degrees in the y-z plane; 10 mm towards the head is 10 cos 30 along it.
    axis = stack_axis([tilted_axial(30)])
    np.testing.assert_allclose(axis, [0, -0.5, np.sqrt(0.75)], atol=1e-12)
    assert positions_along_mm(axis, [0, 0, 10]) == pytest.approx(10 * np.sqrt(0.75))


def test_series_with_three_tilts_is_three_stacks_in_order_of_appearance():
    tilts = [20.0, 20.3, -5, 20, -5.2, 35, 35.4]
    assert split_stacks([tilted_axial(tilt) for tilt in tilts]).tolist() == [0, 0, 1, 0, 1, 2, 2]


def test_stacks_do_not_depend_on_the_order_of_files():
    tilts = np.arange(0, 6, 0.8)  # a chain: neighbours are near, the ends are not
    chained = split_stacks([tilted_axial(tilt) for tilt in tilts])
    shuffled = split_stacks([tilted_axial(tilt) for tilt in np.random.default_rng(3).permutation(tilts)])
    assert set(chained.tolist()) == set(shuffled.tolist()) == {0}


def test_tolerance_is_an_angle():
    pair = [tilted_axial(0), tilted_axial(2)]
    assert split_stacks(pair, tolerance_degrees=1.99).tolist() == [0, 1]
    assert split_stacks(pair, tolerance_degrees=2.01).tolist() == [0, 0]


def test_slice_turned_in_its_own_plane_is_another_stack():
    turned = [0.0, 1, 0, -1, 0, 0]  # same normal as AXIAL, columns and rows exchanged
    np.testing.assert_allclose(slice_normal(turned), slice_normal(AXIAL), atol=1e-15)
    assert split_stacks([AXIAL, turned]).tolist() == [0, 1]


def test_placement_of_a_sagittal_series_with_an_axial_stray():
    # Three sagittal slices of 5 x 3 pixels, 4 mm apart from right to left, given out of order.
    placed = place_slices(
        [SAGITTAL, SAGITTAL, AXIAL, SAGITTAL],
        [[4, 0, 0], [-4, 0, 0], [-1, 0, 9], [0, 0, 0]],
        [[1, 1]] * 4,
        [[5, 3]] * 4,
    )
    assert placed.stack.tolist() == [0, 0, 1, 0]
    assert placed.index.tolist() == [2, 0, 0, 1]
    np.testing.assert_allclose(placed.position_mm, [4, -4, 9, 0])
    np.testing.assert_allclose(placed.fraction, [1, 0, 0.5, 0.5])
    np.testing.assert_allclose(placed.left_right_mm, [4, -4, 0, 0])  # the axial slice's centre is column 1
    assert placed.plane.tolist() == ["sagittal", "sagittal", "axial", "sagittal"]


def test_single_slice_lies_in_the_middle_of_its_stack():
    placed = place_slices([AXIAL], [[0, 0, 3]], [[1, 1]], [[2, 2]])
    assert (placed.fraction.tolist(), placed.index.tolist()) == ([0.5], [0])


def test_series_without_slices_is_empty():
    placed = place_slices(np.empty((0, 6)), np.empty((0, 3)), np.empty((0, 2)), np.empty((0, 2)))
    assert len(placed.stack) == len(placed.plane) == 0


def test_centre_lies_between_the_middle_pixels():
    centre = slice_centres_mm(AXIAL, [0, 0, 0], [2, 3], [5, 4])  # rows 0..4, columns 0..3
    np.testing.assert_allclose(centre, [1.5 * 3, 2 * 2, 0])


@pytest.mark.parametrize(
    ("orientation", "flaw"),
    [
        ([np.nan, 0, 0, 0, 1, 0], "not a finite number"),
        ([np.inf, 0, 0, 0, 1, 0], "not a finite number"),
        ([0, 0, 0, 0, 0, 0], "not of length 1"),
        ([1e300, 0, 0, 0, 1, 0], "not of length 1"),
        ([1, 0, 0, 1, 0, 0], "not perpendicular"),
        ([1, 0, 0, 0.02, 1, 0], "not perpendicular"),
        ([1, 0, 0], "six numbers"),
    ],
)
def test_degenerate_orientation_is_refused_with_its_values(orientation, flaw):
    with pytest.raises(ImageRefused, match=flaw) as refusal:
        slice_normal(orientation)
    assert refusal.value.reason is Reason.BAD_GEOMETRY


def test_refusal_names_the_bad_slice_among_many():
    with pytest.raises(ImageRefused, match=r"slice 2"):
        directions([AXIAL, SAGITTAL, [0, 0, 0, 0, 1, 0]])


@pytest.mark.parametrize("position", [[np.nan, 0, 0], [0, 0, -np.inf], [1e300, 0, 0], [0, 0]])
def test_unusable_position_is_refused(position):
    with pytest.raises(ImageRefused, match="patient position") as refusal:
        pixel_to_patient_mm([0, 0], AXIAL, position, [1, 1])
    assert refusal.value.reason is Reason.BAD_GEOMETRY


@pytest.mark.parametrize("spacing", [[0, 1], [1, -1], [np.nan, 1], [np.inf, 1], [1]])
def test_unusable_spacing_is_refused(spacing):
    with pytest.raises(ImageRefused, match="PixelSpacing"):
        patient_mm_to_pixel([0, 0, 0], AXIAL, [0, 0, 0], spacing)


def test_valid_geometry_masks_what_the_others_refuse():
    nan = float("nan")
    orientations = [AXIAL, [nan] * 6, AXIAL, AXIAL, [0.0] * 6]
    positions = [[0, 0, 0], [0, 0, 0], [nan, 0, 0], [0, 0, 0], [0, 0, 0]]
    spacings = [[1, 1], [1, 1], [1, 1], [0, 1], [1, 1]]
    good = valid_geometry(orientations, positions, spacings)
    assert good.tolist() == [True, False, False, False, False]


@pytest.fixture(scope="module")
def lumbar_affine():
    """Affine of the lumbar volume in DICOM's axes: nibabel's x and y grow to the right and front."""
    if not VOLUME.exists():
        pytest.skip(f"the lumbar volume is not beside the repository: {VOLUME}")
    volume = nibabel.load(VOLUME)
    return np.diag([-1.0, -1, 1, 1]) @ volume.affine, volume.shape, nibabel.aff2axcodes(volume.affine)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_real_volume_cut_along_any_axis_agrees_with_nibabel(lumbar_affine, slice_axis):
    affine, shape, axis_codes = lumbar_affine
    column_axis, row_axis = (axis for axis in range(3) if axis != slice_axis)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    unit = affine[:3, :3] / steps
    n = shape[slice_axis]
    orientation = np.tile(np.concatenate([unit[:, column_axis], unit[:, row_axis]]), (n, 1))
    voxels = np.zeros((n, 3))
    voxels[:, slice_axis] = np.arange(n)
    positions = apply_affine(affine, voxels)
    spacing = [steps[row_axis], steps[column_axis]]

    points = np.random.default_rng(slice_axis).uniform(0, 100, (n, 2))
    voxels[:, [column_axis, row_axis]] = points
    np.testing.assert_allclose(
        pixel_to_patient_mm(points, orientation, positions, spacing), apply_affine(affine, voxels), atol=1e-6
    )
    back, _ = patient_mm_to_pixel(apply_affine(affine, voxels), orientation, positions, spacing)
    np.testing.assert_allclose(back, points, atol=1e-6)

    plane = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
    assert set(planes(orientation)) == {plane[axis_codes[slice_axis]]}

    shuffled = np.random.default_rng(7).permutation(n)
    order = shuffled[slice_order(orientation, positions[shuffled])]
    grows_left_back_or_up = axis_codes[slice_axis] in "LPS"
    assert order.tolist() == (list(range(n)) if grows_left_back_or_up else list(range(n))[::-1])
