"""Crops at fractions of a pixel, held against resampling by hand."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.images.crop import AXES, CropBox, crop_to_square
from embedstore.images.preprocess import PreprocessSpec, squash_bilinear

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (50, 70), dtype=np.uint8)
SMOOTH = np.rint(120 + 60 * np.sin(np.arange(70) / 9)[None] + 50 * np.cos(np.arange(50)[:, None] / 7)).astype(
    np.uint8
)
SPEC = PreprocessSpec("pad", 32)


def by_hand(pixels, box, size_px):
    """Linear interpolation at the centre of every pixel of an upright crop; black beyond the picture."""
    steps = (np.arange(size_px) + 0.5) / size_px
    columns = box.left_px + steps * box.width_px - 0.5
    rows = box.top_px + steps * box.height_px - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    return map_coordinates(np.pad(pixels.astype(float), 40), np.array(grid) + 40, order=1)


@pytest.mark.parametrize("preset", ["pad", "eval"])
@pytest.mark.parametrize(
    "box",
    [
        CropBox(10.0, 12.0, 16.0, 16.0),
        CropBox(10.37, 12.81, 16.0, 16.0),
        CropBox(20.25, 5.5, 30.3, 19.7),
        CropBox(-6.4, -3.2, 20.0, 20.0),
        CropBox(60.8, 41.9, 15.5, 15.5),
    ],
)
def test_an_enlarged_crop_is_interpolated_between_pixels(box, preset):
    found = crop_to_square(NOISE, box, PreprocessSpec(preset, 32)).astype(float)
    # Two roundings in Pillow, one that truncates in eval.
    assert np.abs(found - by_hand(NOISE, box, 32)).max() <= (1.01 if preset == "eval" else 1.5)


@pytest.mark.parametrize("resampling", ["bilinear", "bicubic"])
def test_a_shrunk_crop_is_the_box_of_a_picture_padded_by_hand(resampling):
    box = CropBox(-10.3, 7.7, 60.0, 55.5)
    spec = PreprocessSpec("hf", 20, hf_resample=resampling)
    padded = Image.fromarray(np.pad(NOISE, 30))
    edges = (19.7, 37.7, 79.7, 93.2)
    wanted = np.asarray(padded.resize((20, 20), Image.Resampling[resampling.upper()], edges)).astype(int)
    # Pillow's box is float32: the last bit of a coefficient may differ with the place of the origin.
    assert np.abs(crop_to_square(NOISE, box, spec).astype(int) - wanted).max() <= 1


def test_a_box_of_the_whole_picture_is_the_picture_squashed():
    whole = CropBox(0.0, 0.0, 70.0, 50.0)
    squashed = np.asarray(Image.fromarray(SMOOTH).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    inner = (slice(1, -1), slice(1, -1))  # beyond the edge the crop is black
    assert np.abs(crop_to_square(SMOOTH, whole, SPEC).astype(int) - squashed)[inner].max() <= 1
    evaluated = crop_to_square(SMOOTH, whole, PreprocessSpec("eval", 32)).astype(int)
    assert np.abs(evaluated - squash_bilinear(SMOOTH, 32).astype(int))[inner].max() <= 1


@pytest.mark.parametrize("preset", ["pad", "eval", "hf"])
@pytest.mark.parametrize("axes", AXES)
def test_turning_a_crop_turns_its_picture(axes, preset):
    spec = PreprocessSpec(preset, 32)
    box = CropBox(11.3, 9.6, 30.0, 24.0)
    turned = CropBox(11.3, 9.6, 30.0, 24.0, axes)
    wanted = crop_to_square(SMOOTH, box, spec).astype(int)
    if axes[1] == "r":
        wanted = wanted.T
    wanted = wanted[:, ::-1] if axes[0] == "-" else wanted
    wanted = wanted[::-1] if axes[2] == "-" else wanted
    assert np.abs(crop_to_square(SMOOTH, turned, spec).astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.73])
def test_the_point_in_the_middle_stays_in_the_middle(shift):
    rows, columns = np.mgrid[0:50, 0:70]
    spot = 250 * np.exp(-((columns - 30 - shift) ** 2 + (rows - 20 - shift) ** 2) / 8)
    box = CropBox(30.5 + shift - 12, 20.5 + shift - 12, 24.0, 24.0)
    crop = crop_to_square(spot.astype(np.uint8), box, PreprocessSpec("pad", 48)).astype(float)
    middle = [(np.arange(48) * crop.sum(axis=axis)).sum() / crop.sum() for axis in (0, 1)]
    assert np.allclose(middle, 23.5, atol=0.1)


def test_colour_is_cropped_channel_by_channel():
    colour = np.stack([NOISE, NOISE[::-1], 255 - NOISE], axis=-1)
    box = CropBox(3.3, 4.4, 20.0, 20.0, "-c+r")
    found = crop_to_square(colour, box, SPEC)
    assert found.shape == (32, 32, 3)
    for channel in range(3):
        np.testing.assert_array_equal(
            found[..., channel], crop_to_square(np.ascontiguousarray(colour[..., channel]), box, SPEC)
        )


@pytest.mark.parametrize(
    ("box", "match"),
    [
        (CropBox(70.0, 4.0, 10.0, 10.0), "misses the image of 70 columns and 50 rows"),
        (CropBox(4.0, -10.0, 10.0, 10.0), "misses"),
        (CropBox(4.0, 50.0, 10.0, 10.0), "misses"),
        (CropBox(-30.0, 4.0, 30.0, 10.0), "misses"),
        (CropBox(4.0, 4.0, 0.5, 10.0), "1 to 8,192 pixels"),
        (CropBox(4.0, 4.0, 10.0, 8193.0), "1 to 8,192 pixels"),
    ],
)
def test_a_box_without_a_picture_is_bad_geometry(box, match):
    with pytest.raises(ImageRefused, match=match) as refusal:
        crop_to_square(NOISE, box, SPEC)
    assert refusal.value.reason is Reason.BAD_GEOMETRY


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
