"""Rectangles of images: what is refused, and what tells two crops of one picture apart."""

import hashlib
from dataclasses import replace

import pytest

from embedstore.crop_box import AXES, CropBox, crop_id, image_of_crop
from embedstore.errors import UsageError

BOX = CropBox(10.5, -3.25, 40.0, 32.0, "-c+r")


@pytest.mark.parametrize("name", ["left_px", "top_px", "width_px", "height_px"])
def test_a_box_needs_finite_numbers(name):
    with pytest.raises(UsageError, match="finite"):
        replace(BOX, **{name: float("nan")})


def test_a_box_has_an_area_and_known_axes():
    with pytest.raises(UsageError, match="positive"):
        replace(BOX, width_px=0.0)
    with pytest.raises(UsageError, match=r"\+c\+r.*found '\+c\+c'"):
        replace(BOX, axes="+c+c")


def test_eight_ways_to_lay_a_picture_are_all_different():
    assert len(set(AXES)) == 8
    assert all({axes[1], axes[3]} == {"c", "r"} for axes in AXES)


def test_two_crops_of_one_picture_have_two_digests():
    picture = hashlib.sha256(b"pixels").digest()
    others = [
        replace(BOX, left_px=10.6),
        replace(BOX, top_px=-3.0),
        replace(BOX, width_px=41.0),
        replace(BOX, height_px=33.0),
        replace(BOX, axes="+c+r"),
    ]
    digests = {box.sha256(picture) for box in (BOX, *others)}
    assert len(digests) == 6
    assert BOX.sha256(picture) == CropBox(10.5, -3.25, 40.0, 32.0, "-c+r").sha256(picture)
    assert BOX.sha256(hashlib.sha256(b"others").digest()) not in digests


@pytest.mark.parametrize("image_id", ["a/1.dcm", "a/1.dcm#3", "0f3c"])
def test_the_image_of_a_crop_is_found_by_its_id(image_id):
    assert image_of_crop(crop_id(image_id, "axial_t2,l4_l5,left")) == image_id
    assert image_of_crop(image_id) == image_id
