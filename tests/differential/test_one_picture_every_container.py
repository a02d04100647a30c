"""One grey picture of 8 or 16 bits has one digest of its decoded pixels, whatever it is written in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydicom.dataset import Dataset

from embedstore.images.stored_image import content_sha256
from tests.differential.dicom_writing import UIDS, dicom_file
from tests.differential.raster_writing import png, pnm, tiff
from tests.image_files import dataset, decoded

LOSSLESS = sorted(UIDS.keys() - {"jpeg baseline", "jpeg extended", "jpeg-ls near"})


def pictures(dtype: type) -> st.SearchStrategy[np.ndarray]:
    shapes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
    return arrays.arrays(dtype, shapes)


def thrice(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def with_alpha(samples: np.ndarray) -> np.ndarray:
    """Add a channel that is opaque everywhere."""
    channels = samples[..., None] if samples.ndim == 2 else samples
    opaque = np.full((*channels.shape[:2], 1), np.iinfo(samples.dtype).max, samples.dtype)
    return np.concatenate([channels, opaque], axis=2)


def dicom(grey: np.ndarray, syntax: str, **elements: object) -> bytes:
    header: Dataset = dataset(grey, **elements)
    return dicom_file(header, grey[None], syntax)


def shuffled_palette(grey: np.ndarray) -> bytes:
    """Write grey as indices into a palette of greys in another order."""
    order = np.random.default_rng(5).permutation(256)
    return png(np.argsort(order).astype(np.uint8)[grey], colour_type=3, palette=thrice(order[None])[0])


def dicom_palette(grey: np.ndarray) -> bytes:
    order = np.random.default_rng(6).permutation(256).astype(np.uint8)
    header = dataset(grey, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 8])
        header[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(header, f"{colour}PaletteColorLookupTableData", order.tobytes())
    return dicom_file(header, np.argsort(order).astype(np.uint8)[grey][None], "explicit")


def inverse(grey: np.ndarray) -> np.ndarray:
    return np.iinfo(grey.dtype).max - grey


CONTAINERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": lambda grey: png(grey, colour_type=0),
    "png grey and alpha": lambda grey: png(with_alpha(grey), colour_type=4),
    "png rgb": lambda grey: png(thrice(grey), colour_type=2),
    "png rgb and alpha": lambda grey: png(with_alpha(thrice(grey)), colour_type=6),
    "tiff": lambda grey: tiff(grey, photometric=1),
    "tiff big endian": lambda grey: tiff(grey, photometric=1, order=">"),
    "tiff white is zero": lambda grey: tiff(inverse(grey), photometric=0),
    "tiff white is zero, big endian": lambda grey: tiff(inverse(grey), photometric=0, order=">"),
    "tiff rgb": lambda grey: tiff(thrice(grey), photometric=2),
    "pgm": pnm,
    "ppm": lambda grey: pnm(thrice(grey)),
    "dicom rgb": lambda grey: dicom(thrice(grey), "explicit"),
    "dicom rgb rle": lambda grey: dicom(thrice(grey), "rle"),
} | {f"dicom {syntax}": (lambda grey, name=syntax: dicom(grey, name)) for syntax in LOSSLESS}
OF_8_BITS = {"png palette": shuffled_palette, "dicom palette": dicom_palette}


def assert_one_digest(container: Callable[[np.ndarray], bytes], grey: np.ndarray, folder) -> None:
    assert decoded(container(grey), folder).content_sha256 == content_sha256(grey)


quickly = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("name", [*CONTAINERS, *OF_8_BITS])
def test_a_picture_of_8_bits_has_one_digest(name, tmp_path):
    @quickly
    @given(grey=pictures(np.uint8))
    def check(grey):
        assert_one_digest((CONTAINERS | OF_8_BITS)[name], grey, tmp_path)

    check()


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_picture_of_16_bits_has_one_digest(name, tmp_path):
    @quickly
    @given(grey=pictures(np.uint16))
    def check(grey):
        assert_one_digest(CONTAINERS[name], grey, tmp_path)

    check()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_monochrome1_of_the_negative_shows_the_same_picture(syntax, dtype, tmp_path):
    """Its stored values are others, so is their digest; halves between two grey levels are rounded the other way."""

    @quickly
    @given(grey=pictures(dtype))
    def check(grey):
        negative = dicom(inverse(grey), syntax, PhotometricInterpretation="MONOCHROME1")
        shown = decoded(negative, tmp_path).pixels.astype(int)
        assert np.abs(shown - decoded(dicom(grey, syntax), tmp_path).pixels).max() <= 1

    check()
