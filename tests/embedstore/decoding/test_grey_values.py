"""Grey values for the eye: in modality units, with the file's own window, whole or antialiased."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid

from embedstore.decoding.decode import DecodeJob, DecodeLimits
from embedstore.decoding.grey_values import LONGEST_PX, grey_values_of
from embedstore.decoding.pool import DecoderPool
from embedstore.errors import ImageRefused
from embedstore.images.preprocess import PreprocessSpec
from tests.image_files import dataset, dicom_bytes, picture_bytes

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


def grey(tmp_path, pixels, **elements):
    path = tmp_path / "one.dcm"
    path.write_bytes(dicom_bytes(dataset(pixels, **elements)))
    return grey_values_of(DecodeJob(str(path)), DecodeLimits())


def test_values_are_in_modality_units_and_whole(tmp_path):
    found = grey(tmp_path, RAMP, Modality="CT", RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU")
    np.testing.assert_array_equal(found.values, RAMP * 2.0 - 1000)
    assert (found.low, found.high) == (-160, 240)  # soft tissue, where the file says nothing
    assert (found.unit, found.inverted) == ("HU", False)


@pytest.mark.parametrize(
    ("function", "limits"),
    # PS3.3 C.11.2.1.2: LINEAR maps c - .5 +- (w - 1) / 2 to black and white, LINEAR_EXACT c +- w / 2.
    [("LINEAR", (900 - 0.5 - 200, 900 - 0.5 + 200)), ("LINEAR_EXACT", (900 - 200.5, 900 + 200.5))],
)
def test_the_window_is_that_of_the_file(tmp_path, function, limits):
    found = grey(tmp_path, RAMP, WindowCenter=900, WindowWidth=401, VOILUTFunction=function)
    assert (found.low, found.high) == limits


def test_without_a_window_the_range_of_most_values_is_shown(tmp_path):
    found = grey(tmp_path, RAMP, PhotometricInterpretation="MONOCHROME1")
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(RAMP, (1, 99))))
    assert found.inverted is True
    flat = grey(tmp_path, np.full((4, 4), 7, np.uint16))
    assert (flat.low, flat.high) == (7, 8)


def test_padding_takes_no_part(tmp_path):
    pixels = RAMP.copy()
    pixels[:10] = 65535
    found = grey(tmp_path, pixels, PixelPaddingValue=65535)
    assert found.values.max() == RAMP.max()
    assert (found.values[:10] == RAMP[10:].min()).all()


def test_a_large_image_is_antialiased_and_pixels_become_square(tmp_path):
    pixels = np.tile(
        np.array([0, 1000], np.uint16), (1030, 515)
    )  # columns of two values, each one pixel wide
    found = grey(tmp_path, pixels)
    assert found.values.shape == (LONGEST_PX, LONGEST_PX)
    assert found.values[:, 5:-5].std() < 60
    assert found.values.mean() == pytest.approx(500, abs=5)
    tall = grey(tmp_path, RAMP, PixelSpacing=[2, 1])
    assert tall.values.shape == (128, 48)


def test_colour_and_pictures_have_no_window(tmp_path):
    with pytest.raises(ImageRefused, match="only grey DICOM"):
        grey(tmp_path, np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    path = tmp_path / "one.png"
    path.write_bytes(picture_bytes(np.zeros((4, 4), np.uint8)))
    with pytest.raises(ImageRefused, match="only grey DICOM"):
        grey_values_of(DecodeJob(str(path)), DecodeLimits())


def test_the_processes_return_the_same(tmp_path):
    path, broken = tmp_path / "one.dcm", tmp_path / "broken.dcm"
    path.write_bytes(dicom_bytes(dataset(RAMP, WindowCenter=900, WindowWidth=401), uid.RLELossless))
    broken.write_bytes(path.read_bytes()[:-500])
    jobs = [DecodeJob(str(path)), DecodeJob(str(broken)), DecodeJob(str(path))]
    with DecoderPool(PreprocessSpec(size_px=8), workers=1) as pool:
        first, refused, again = pool.grey_values(jobs, ahead=1)
    assert isinstance(refused, ImageRefused)
    expected = grey_values_of(jobs[0], DecodeLimits())
    for found in (first, again):
        np.testing.assert_array_equal(found.values, expected.values)
        assert (found.low, found.high, found.inverted, found.unit) == (699.5, 1099.5, False, "")
