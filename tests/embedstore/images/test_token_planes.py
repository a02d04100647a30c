"""A marker at a known millimetre is found where its token is, through padding, squashing and pixels of any shape."""

import numpy as np
import pytest

from embedstore.errors import DataError
from embedstore.geometry import patient_mm_to_pixel, pixel_to_patient_mm
from embedstore.images.crop import AXES, CropBox, crop_to_square
from embedstore.images.preprocess import PreprocessSpec, preprocess
from embedstore.images.token_planes import crop_token_planes, token_planes
from embedstore.slices.planes import SlicePlanes

SAGITTAL, TILTED_AXIAL = (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0.9510565, -0.309017)
MIRRORED = (0, -1, 0, 0, 0, 1)  # columns to the front, rows to the head


def planes_of(orientation, spacing, shape):
    return SlicePlanes(
        np.array([orientation], float),
        np.array([[12.0, -90.0, 110.0]]),
        np.array([spacing], float),
        np.array([shape], float),
    )


@pytest.mark.parametrize("preset", ["pad", "eval", "hf"])
@pytest.mark.parametrize("orientation", [SAGITTAL, TILTED_AXIAL, MIRRORED])
@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((0.6, 0.6), (320, 320)), ((0.6, 0.6), (400, 301)), ((0.9, 0.6), (210, 420)), ((0.5, 0.8), (401, 300))],
)
def test_a_marker_in_the_image_is_found_by_its_tokens_within_a_pixel(preset, orientation, spacing, shape):
    """The picture's own pixels are taken as a grid of tokens, so that only the mapping can be wrong."""
    spec = PreprocessSpec(preset, size_px=448)
    planes = planes_of(orientation, spacing, shape)
    row, column = 140, 205
    image = np.zeros(shape, np.uint8)
    image[row - 3 : row + 4, column - 3 : column + 4] = 255
    picture = preprocess(image, spec, spacing[0] / spacing[1]).astype(float)
    rows, columns = np.indices(picture.shape)
    weight = picture / picture.sum()
    tokens = token_planes(planes, spec.to_json(), picture.shape)
    found = pixel_to_patient_mm(
        [[(columns * weight).sum(), (rows * weight).sum()]],
        tokens.orientations,
        tokens.positions_mm,
        tokens.spacings_mm,
    )
    back, off = patient_mm_to_pixel(found, planes.orientations, planes.positions_mm, planes.spacings_mm)
    assert np.abs(back[0] - (column, row)).max() < 0.6
    assert abs(off[0]) < 1e-6


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("preset", ["pad", "eval", "hf"])
def test_a_marker_in_a_crop_is_found_by_its_tokens_however_the_crop_is_turned(preset, axes):
    spec, spacing, shape = PreprocessSpec(preset, size_px=224), (0.9, 0.6), (210, 330)
    planes = planes_of(TILTED_AXIAL, spacing, shape)
    row, column = 120, 205
    image = np.zeros(shape, np.uint8)
    image[row - 2 : row + 3, column - 3 : column + 4] = 255
    box = CropBox(170.25, 95.5, 83.0, 55.0, axes)
    picture = crop_to_square(image, box, spec).astype(float)
    rows, columns = np.indices(picture.shape)
    weight = picture / picture.sum()
    tokens = crop_token_planes(planes, [box], picture.shape)
    at = [[(columns * weight).sum(), (rows * weight).sum()]]
    found = pixel_to_patient_mm(at, tokens.orientations, tokens.positions_mm, tokens.spacings_mm)
    back, off = patient_mm_to_pixel(found, planes.orientations, planes.positions_mm, planes.spacings_mm)
    assert np.abs(back[0] - (column, row)).max() < 0.3
    assert abs(off[0]) < 1e-6


def test_middles_of_a_crops_tokens_by_hand():
    """Pixels 10 to 29 of 1 mm, in four tokens of 5: the first one's middle is pixel 12; mirrored, pixel 27."""
    planes = planes_of(SAGITTAL, (1, 1), (100, 50))
    for axes, first in (("+c+r", 12), ("-c+r", 27)):
        tokens = crop_token_planes(planes, [CropBox(10, 40, 20, 20, axes)], (4, 4))
        np.testing.assert_allclose(tokens.positions_mm, [[12.0, -90.0 + first, 110.0 - 42]])
        np.testing.assert_allclose(tokens.spacings_mm, [[5, 5]])
        assert tokens.orientations[0, 1] == (1 if axes[0] == "+" else -1)


def test_middles_of_tokens_by_hand():
    """100 x 50 pixels of 1 mm in a square of 100: 25 columns lie before the image, and a token is 25 pixels."""
    planes = planes_of(SAGITTAL, (1, 1), (100, 50))
    tokens = token_planes(planes, PreprocessSpec("pad", size_px=448).to_json(), (4, 4))
    # Columns 0 to 24 of the square are padding: their middle is column 12 - 25 = -13 of the image.
    assert tokens.positions_mm.tolist() == [[12.0, -90.0 - 13, 110.0 - 12]]
    assert tokens.spacings_mm.tolist() == [[25, 25]]
    assert tokens.shapes_px.tolist() == [[4, 4]]


def test_the_odd_pixel_of_padding_lies_behind():
    tokens = token_planes(
        planes_of(SAGITTAL, (1, 1), (4, 3)), PreprocessSpec("pad", size_px=4).to_json(), (4, 4)
    )
    assert tokens.positions_mm.tolist() == [[12.0, -90.0, 110.0]]


def test_stores_from_before_square_pixels_forget_the_shape_of_a_pixel():
    planes = planes_of(SAGITTAL, (2, 1), (100, 100))
    old = PreprocessSpec("pad", size_px=100, square_pixels=False).to_json()
    assert token_planes(planes, old, (10, 10)).spacings_mm.tolist() == [[20, 10]]
    new = PreprocessSpec("pad", size_px=100).to_json()
    assert token_planes(planes, new, (10, 10)).spacings_mm.tolist() == [[20, 20]]


def test_unknown_planes_stay_unknown():
    planes = planes_of(SAGITTAL, (1, 1), (8, 8))
    lost = SlicePlanes(np.full((1, 6), np.nan), planes.positions_mm, planes.spacings_mm, planes.shapes_px)
    assert token_planes(lost, PreprocessSpec().to_json(), (4, 4)).known.tolist() == [False]


def test_a_picture_of_another_making_is_refused():
    with pytest.raises(DataError, match="made by the presets pad, eval, hf; found preprocess 'letterbox'"):
        token_planes(planes_of(SAGITTAL, (1, 1), (8, 8)), {"preset": "letterbox", "size_px": 8}, (4, 4))
