"""Crops of a given size in millimetres."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.images.crop import crop_mirrored_mm, crop_mm

IMAGE = np.arange(20, dtype=np.int16).reshape(4, 5)  # value = 5 * row + column


def test_crop_is_centred_on_column_and_row():
    assert crop_mm(IMAGE, (2, 1), (1, 1), size_mm=3).tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]


def test_millimetres_become_pixels_along_each_axis():
    # Rows 0.5 mm apart, columns 1 mm: 2 mm are 4 rows and 2 columns. Rows 0-3 and columns 1-2 straddle (1.5, 1.5).
    assert crop_mm(IMAGE, (1.5, 1.5), (0.5, 1.0), size_mm=2).tolist() == [[1, 2], [6, 7], [11, 12], [16, 17]]


def test_outside_is_zero_on_every_side():
    crop = crop_mm(IMAGE + 1, (0, 0), (1, 1), size_mm=3)
    assert crop.tolist() == [[0, 0, 0], [0, 1, 2], [0, 6, 7]]
    crop = crop_mm(IMAGE + 1, (4, 3), (1, 1), size_mm=3)
    assert crop.tolist() == [[14, 15, 0], [19, 20, 0], [0, 0, 0]]


def test_crop_may_be_larger_than_the_image():
    crop = crop_mm(IMAGE + 1, (2, 1.5), (1, 1), size_mm=10)
    assert crop.shape == (10, 10)
    assert crop.sum() == (IMAGE + 1).sum()


def test_colour_and_type_are_kept():
    colour = np.stack([IMAGE, IMAGE + 100, IMAGE + 200], axis=-1).astype(np.uint8)
    crop = crop_mm(colour, (2, 2), (1, 1), size_mm=1)
    assert crop.dtype == np.uint8
    assert crop.tolist() == [[[12, 112, 212]]]


def test_crop_does_not_share_memory():
    image = IMAGE.copy()
    crop_mm(image, (2, 2), (1, 1), size_mm=3)[:] = -1
    assert (image == IMAGE).all()


@pytest.mark.parametrize("size_mm", [1, 2, 3, 4])
@pytest.mark.parametrize("center", [(2, 1), (1.5, 2.25), (2.49, 1.51), (3.5, 0.5)])
def test_middle_of_the_crop_is_within_half_a_pixel_of_the_point(center, size_mm):
    rows, columns = np.mgrid[0:40, 0:50]
    center = (center[0] + 20, center[1] + 20)
    for grid, wanted in ((columns, center[0]), (rows, center[1])):
        middle = crop_mm(grid.astype(float), center, (1, 1), size_mm=size_mm).mean()
        assert abs(middle - wanted) <= 0.5 + 1e-6


def test_mirrored_crop_exchanges_left_and_right_of_the_crop():
    plain = crop_mm(IMAGE, (1, 1), (1, 1), size_mm=3)
    assert crop_mirrored_mm(IMAGE, (1, 1), (1, 1), size_mm=3).tolist() == plain[:, ::-1].tolist()


def test_right_side_laid_onto_the_left_equals_the_left_of_a_symmetric_image():
    half = np.random.default_rng(0).integers(0, 9, (9, 5))
    symmetric = np.concatenate([half, half[:, ::-1]], axis=1)  # columns 0-4 and their mirror 5-9
    left = crop_mm(symmetric, (2, 4), (1, 1), size_mm=5)
    right = crop_mirrored_mm(symmetric, (7, 4), (1, 1), size_mm=5)
    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("center", "spacing", "match"),
    [
        ((50, 2), (1, 1), "misses the image"),
        ((-9, 2), (1, 1), "misses the image"),
        ((float("nan"), 2), (1, 1), "finite point"),
        ((2, 2), (0, 1), "positive spacing"),
        ((2, 2), (1, -1), "positive spacing"),
        ((2, 2), (float("inf"), 1), "positive spacing"),
        ((2, 2), (1e-9, 1), "pixels wide"),
    ],
)
def test_impossible_crop_is_bad_geometry(center, spacing, match):
    with pytest.raises(ImageRefused, match=match) as refusal:
        crop_mm(IMAGE, center, spacing, size_mm=3)
    assert refusal.value.reason is Reason.BAD_GEOMETRY


@pytest.mark.parametrize("size_mm", [0, -1, float("nan"), float("inf")])
def test_size_must_be_positive(size_mm):
    with pytest.raises(UsageError, match="size_mm"):
        crop_mm(IMAGE, (2, 2), (1, 1), size_mm=size_mm)
