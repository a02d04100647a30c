"""The same pixels as dcmtk, on streams that dcmtk encodes: the tools of the reference implementation decide."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from embedstore.images.dicom import open_dicom
from embedstore.images.hostile import open_regular
from tests.image_files import dataset, dicom_bytes, pydicom_file

TOOLS = ("dcmcjpeg", "dcmdjpeg", "dcmcjpls", "dcmdjpls")
pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason="needs dcmtk (Debian: apt-get install dcmtk)"
)
RNG = np.random.default_rng(7)
RAMP = np.add.outer(np.arange(50) * 40, np.arange(60) * 30)
DEEP = np.clip(RAMP + RNG.integers(0, 90, RAMP.shape), 0, 4095).astype(np.uint16)
IMAGES = {
    "12 bits": (DEEP, 12),
    "16 bits": (DEEP * 16 + 5, 16),
    "8 bits": ((DEEP >> 4).astype(np.uint8), 8),
    "signed": (DEEP.astype(np.int16) - 2000, 16),
    "signed, 12 bits": (DEEP.astype(np.int16) - 2000, 12),
    "10 bits in 12": (DEEP >> 2, 12),
    "colour": (np.stack([DEEP >> 4, DEEP[::-1] >> 4, DEEP[:, ::-1] >> 4], -1).astype(np.uint8), 8),
}


def run(tool: str, *arguments: str | Path) -> None:
    subprocess.run([tool, *map(str, arguments)], check=True, capture_output=True, timeout=60)


def read(path: Path) -> np.ndarray:
    with open_regular(str(path), max_bytes=10**8) as file:
        return open_dicom(file, max_pixels=10**7, max_frames=9, max_inflated_bytes=10**8).read(0).pixels


def native(folder: Path, pixels: np.ndarray, bits: int) -> Path:
    path = folder / "native.dcm"
    path.write_bytes(dicom_bytes(dataset(pixels, bits_stored=bits)))
    return path


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    "options",
    [["+e1"], *(["+el", "+sv", str(selection)] for selection in range(1, 8)), ["+e1", "-ho"]],
    ids=" ".join,
)
def test_lossless_jpeg_of_dcmtk_is_exact(tmp_path, image, options):
    pixels, bits = IMAGES[image]
    run("dcmcjpeg", *options, native(tmp_path, pixels, bits), tmp_path / "jpeg.dcm")
    np.testing.assert_array_equal(read(tmp_path / "jpeg.dcm"), pixels)


@pytest.mark.parametrize("transform", [1, 2, 5])
@pytest.mark.parametrize("selection", [1, 4, 7])
def test_point_transform_is_that_of_dcmtk(tmp_path, transform, selection):
    source = native(tmp_path, DEEP, 12)
    run("dcmcjpeg", "+el", "+pl", "+sv", str(selection), "+pt", str(transform), source, tmp_path / "jpeg.dcm")
    run("dcmdjpeg", tmp_path / "jpeg.dcm", tmp_path / "theirs.dcm")
    found = read(tmp_path / "jpeg.dcm")
    np.testing.assert_array_equal(found, read(tmp_path / "theirs.dcm"))
    assert (found != DEEP).any()


@pytest.mark.parametrize("image", IMAGES)
def test_jpeg_ls_of_dcmtk_is_exact(tmp_path, image):
    pixels, bits = IMAGES[image]
    for interleave in ("+il", "+is", "+in") if pixels.ndim == 3 else ("+il",):
        run("dcmcjpls", "+el", interleave, native(tmp_path, pixels, bits), tmp_path / "jls.dcm")
        np.testing.assert_array_equal(read(tmp_path / "jls.dcm"), pixels)


@pytest.mark.parametrize("image", ["12 bits", "8 bits", "16 bits", "colour"])
def test_near_lossless_jpeg_ls_is_that_of_dcmtk(tmp_path, image):
    pixels, bits = IMAGES[image]
    run("dcmcjpls", "+en", "+md", "3", native(tmp_path, pixels, bits), tmp_path / "jls.dcm")
    run("dcmdjpls", tmp_path / "jls.dcm", tmp_path / "theirs.dcm")
    found = read(tmp_path / "jls.dcm")
    np.testing.assert_array_equal(found, read(tmp_path / "theirs.dcm"))
    assert 0 < np.abs(found.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("quality", [30, 90])
def test_lossy_jpeg_of_12_bits_differs_from_dcmtk_by_one_at_most(tmp_path, quality):
    # Both invert the transform in integers; T.83 lets a decoder err by 1 in a coefficient, and they round apart.
    run("dcmcjpeg", "+ee", "+bt", "+q", str(quality), native(tmp_path, DEEP, 12), tmp_path / "jpeg.dcm")
    run("dcmdjpeg", tmp_path / "jpeg.dcm", tmp_path / "theirs.dcm")
    found, theirs = read(tmp_path / "jpeg.dcm").astype(int), read(tmp_path / "theirs.dcm").astype(int)
    assert np.abs(found - theirs).max() <= 1
    assert (found != DEEP).any()


@pytest.mark.parametrize("options", [["+eb"], ["+ee", "+be"]], ids=["baseline", "extended"])
def test_lossy_jpeg_of_8_bits_is_that_of_dcmtk(tmp_path, options):
    pixels, bits = IMAGES["8 bits"]
    run("dcmcjpeg", *options, native(tmp_path, pixels, bits), tmp_path / "jpeg.dcm")
    run("dcmdjpeg", tmp_path / "jpeg.dcm", tmp_path / "theirs.dcm")
    difference = read(tmp_path / "jpeg.dcm").astype(int) - read(tmp_path / "theirs.dcm")
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("options", [["+cy", "+s2"], ["+cy", "+s4"], ["+cr"]], ids=" ".join)
def test_colour_jpeg_is_that_of_dcmtk_within_its_other_upsampling(tmp_path, options):
    pixels, bits = IMAGES["colour"]
    run("dcmcjpeg", "+eb", *options, native(tmp_path, pixels, bits), tmp_path / "jpeg.dcm")
    run("dcmdjpeg", "+cp", tmp_path / "jpeg.dcm", tmp_path / "theirs.dcm")
    difference = np.abs(read(tmp_path / "jpeg.dcm").astype(int) - read(tmp_path / "theirs.dcm"))
    # The two libraries smooth halved colours alike; fixed-point and exact YCbCr to RGB differ by 1 a step.
    assert np.percentile(difference, 99) <= 2
    assert difference.max() <= 3


@pytest.mark.parametrize(
    "name", ["JPEG-lossy.dcm", "JPGExtended.dcm", "SC_rgb_jls_lossy_line.dcm", "JPEGLSNearLossless_16.dcm"]
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # pydicom remarks on its own odd files
def test_real_file_has_the_pixels_of_dcmtk(tmp_path, name):
    path = pydicom_file(name)
    tool = "dcmdjpls" if "jls" in name.lower() or "LS" in name else "dcmdjpeg"
    run(tool, path, tmp_path / "theirs.dcm")
    theirs = pydicom.dcmread(tmp_path / "theirs.dcm").pixel_array.astype(int)
    assert np.abs(read(path).astype(int) - theirs).max() <= (1 if tool == "dcmdjpeg" else 0)
