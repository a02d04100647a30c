"""Pixels are as high and wide as the header says, and frames of one kind share a grey scale."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from embedstore.encoders.hog import HogEncoder
from embedstore.errors import Note
from embedstore.images.preprocess import PreprocessSpec
from embedstore.values.frame_attributes import pixel_aspect, value_kind
from tests.dcmtk import needs_dcmtk, shown
from tests.image_files import dataset, decoded, dicom_bytes, same_size

ROWS, COLUMNS = np.mgrid[0:300, 0:260]
ANATOMY = (
    1000 + 900 * np.sin(COLUMNS / 30) + 700 * np.cos(ROWS / 25)
    + 400 * ((COLUMNS - 120) ** 2 + (ROWS - 150) ** 2 < 3000)
).clip(1, 4095).astype(np.uint16)  # fmt: skip


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, 1),
        ({"PixelSpacing": [0.4, 0.2]}, 2),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"NominalScannedPixelSpacing": [3, 2]}, 1.5),
        ({"PixelAspectRatio": [1, 3]}, 1 / 3),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [2, 1], "PixelAspectRatio": [1, 3]}, 1),
        ({"ImagerPixelSpacing": [2, 1], "NominalScannedPixelSpacing": [3, 1], "PixelAspectRatio": [1, 3]}, 2),
        ({"NominalScannedPixelSpacing": [2, 1], "PixelAspectRatio": [1, 3]}, 2),
        ({"PixelSpacing": [0, 1], "PixelAspectRatio": [3, 1]}, 3),
        ({"PixelSpacing": [-1, 1]}, 1),
        ({"PixelSpacing": "0.5"}, 1),
    ],
)
def test_aspect_is_that_of_the_first_attribute_that_says_one(elements, expected):
    assert pixel_aspect(dataset(np.zeros((2, 2), np.uint8), **elements), 0) == pytest.approx(expected)


@needs_dcmtk
@pytest.mark.parametrize(
    "elements",
    [
        {"PixelSpacing": [0.4, 0.2]}, {"ImagerPixelSpacing": [0.1, 0.2]}, {"NominalScannedPixelSpacing": [3, 2]},
        {"PixelAspectRatio": [1, 3]}, {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [2, 1]},
        {"ImagerPixelSpacing": [2, 1], "NominalScannedPixelSpacing": [3, 1]},
        {"NominalScannedPixelSpacing": [2, 1], "PixelAspectRatio": [1, 3]},
        {"ImagerPixelSpacing": [2, 1], "PixelAspectRatio": [1, 3]}, {"PixelSpacing": [0.2015, 0.2]},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("shape", [(150, 260), (260, 150), (200, 200)])
def test_anatomy_has_the_shape_that_dcmtk_gives_it(tmp_path, elements, shape):
    content = dicom_bytes(
        dataset(ANATOMY[: shape[0], : shape[1]], bits_stored=12, PresentationLUTShape="IDENTITY", **elements)
    )
    theirs = shown(content, tmp_path, "+Wm", "+Sxf", "1.0").shape
    ours = decoded(content, tmp_path, spec=PreprocessSpec("pad", 448)).pixels
    height, width = np.any(ours, axis=1).sum(), np.any(ours, axis=0).sum()
    longest = max(theirs)
    # Within a pixel of theirs, which is whole, and one of ours at each end: padding blends into the first line.
    tolerance = 448 / longest + 2
    assert max(abs(height - 448 * theirs[0] / longest), abs(width - 448 * theirs[1] / longest)) <= tolerance


def test_frames_have_the_spacing_of_their_own_measures():
    def group(spacing):
        measures, found = Dataset(), Dataset()
        measures.PixelSpacing = spacing
        found.PixelMeasuresSequence = [measures]
        return found

    ds = dataset(np.zeros((2, 2, 2), np.uint8), frames=2)
    ds.SharedFunctionalGroupsSequence = [group([0.3, 0.2])]
    assert pixel_aspect(ds, 1) == pytest.approx(1.5)
    ds.PerFrameFunctionalGroupsSequence = [group([0.2, 0.2]), group([0.4, 0.2])]
    assert [pixel_aspect(ds, frame) for frame in (0, 1)] == pytest.approx([1, 2])


def test_picture_with_half_its_rows_has_nearly_the_same_vector(tmp_path):
    encoder = HogEncoder(device="cpu")
    square = decoded(
        dicom_bytes(dataset(ANATOMY, bits_stored=12, PixelSpacing=[0.2, 0.2])),
        tmp_path,
        spec=encoder.preprocess,
    )
    high = decoded(
        dicom_bytes(dataset(ANATOMY[::2], bits_stored=12, PixelSpacing=[0.4, 0.2])),
        tmp_path,
        spec=encoder.preprocess,
    )
    first, second = encoder.encode(np.stack([square.pixels, high.pixels]))
    assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) > 0.98
    assert (square.notes, high.notes) == (frozenset(), {Note.MADE_SQUARE})


@pytest.mark.parametrize(
    ("spec", "elements", "notes"),
    [
        (PreprocessSpec("pad", 64), {"PixelSpacing": [0.202, 0.2]}, set()),  # 1 % is the digits of a spacing
        (PreprocessSpec("pad", 64), {"PixelSpacing": [0.203, 0.2]}, {Note.MADE_SQUARE}),
        (PreprocessSpec("pad", 64), {"PixelAspectRatio": [1, 1000]}, {Note.ASPECT_IGNORED}),
        (PreprocessSpec("pad", 64, square_pixels=False), {"PixelSpacing": [0.4, 0.2]}, set()),
        (PreprocessSpec("hf", 64), {"PixelSpacing": [0.4, 0.2]}, set()),
    ],
)
def test_only_what_is_resampled_is_said(tmp_path, spec, elements, notes):
    content = dicom_bytes(dataset(ANATOMY, bits_stored=12, **elements))
    assert decoded(content, tmp_path, spec=spec).notes == notes
    if notes != {Note.MADE_SQUARE}:
        plain = decoded(dicom_bytes(dataset(ANATOMY, bits_stored=12)), tmp_path, spec=spec)
        np.testing.assert_array_equal(decoded(content, tmp_path, spec=spec).pixels, plain.pixels)


@pytest.mark.parametrize(
    ("types", "elements", "expected"),
    [
        (["ORIGINAL", "PRIMARY", "M", "ND"], {}, ""),
        (["ORIGINAL", "PRIMARY", "P", "ND"], {}, "PHASE"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], {}, "PHASE"),
        (["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"], {}, "REAL"),
        (["ORIGINAL", "PRIMARY", "OTHER"], {"ComplexImageComponent": "IMAGINARY"}, "IMAGINARY"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], {}, "ADC"),
        (["DERIVED", "PRIMARY", "T1 MAP"], {}, "T1 MAP"),
        (["ORIGINAL", "PRIMARY", "M"], {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, ""),
        (
            ["ORIGINAL", "PRIMARY", "M"],
            {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "mrad"},
            "MRAD",
        ),
        (None, {}, ""),
    ],
)
def test_kind_of_a_classic_mr_image_is_read_from_its_type(types, elements, expected):
    ds = dataset(np.zeros((2, 2), np.uint8), Modality="MR", **elements)
    if types:
        ds.ImageType = types
    assert value_kind(ds, 0) == expected


@pytest.mark.parametrize(("code", "expected"), [(0, ""), (1, "PHASE"), (2, "REAL"), (3, "IMAGINARY")])
def test_kind_of_a_ge_image_is_read_from_its_private_element(code, expected):
    ds = dataset(np.zeros((2, 2), np.uint8), Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "OTHER"])
    ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", code)
    assert value_kind(ds, 0) == expected


@pytest.mark.parametrize(
    ("contrast", "expected"), [("NONE", ""), ("T1", "T1"), ("SUBTRACTION", "SUBTRACTION"), ("ADC", "ADC")]
)
def test_derived_contrast_of_an_enhanced_image_is_a_kind(contrast, expected):
    kind, group = Dataset(), Dataset()
    kind.FrameType, kind.ComplexImageComponent = ["DERIVED", "PRIMARY", "VOLUME", contrast], "MAGNITUDE"
    group.MRImageFrameTypeSequence = [kind]
    ds = dataset(np.zeros((2, 2), np.uint8), Modality="MR")
    ds.SharedFunctionalGroupsSequence = [group]
    assert value_kind(ds, 0) == expected


def complex_frames():
    """Return four frames, magnitude and phase by turns; phase is noise over three times the range."""
    magnitude = (np.add.outer(np.arange(64), np.arange(64)) * 12).astype(np.uint16)
    phase = np.random.default_rng(0).integers(0, 4095, (64, 64)).astype(np.uint16)
    ds = dataset(np.stack([magnitude, phase] * 2), frames=4, bits_stored=12, Modality="MR")
    ds.SOPClassUID = uid.EnhancedMRImageStorage
    ds.ImageType, ds.ComplexImageComponent = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "MIXED"
    groups = []
    for number in range(4):
        rescale, kind, group = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = ((1, 0), (2, -4095))[number % 2]
        rescale.RescaleType = "US"
        kind.FrameType, kind.ComplexImageComponent = ds.ImageType, ("MAGNITUDE", "PHASE")[number % 2]
        group.PixelValueTransformationSequence, group.MRImageFrameTypeSequence = [rescale], [kind]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    return ds, magnitude, phase


def test_magnitude_and_phase_of_one_file_have_a_range_each(tmp_path):
    ds, magnitude, phase = complex_frames()
    spec = same_size(magnitude)
    for frame, values in enumerate((magnitude, phase, magnitude, phase)):
        low, high = np.percentile(values, [1, 99])
        right = np.clip((values - low) / (high - low), 0, 1) * 255
        assert np.abs(decoded(dicom_bytes(ds), tmp_path, spec=spec, frame=frame).pixels - right).max() <= 0.51


def test_frame_takes_the_given_range_of_its_kind(tmp_path):
    ds, magnitude, _ = complex_frames()
    ranges = {"value_range": (0.0, 1512.0), "ranges_by_kind": {"PHASE": (-4095.0, 4095.0)}}
    first = decoded(dicom_bytes(ds), tmp_path, spec=same_size(magnitude), frame=0, **ranges)
    assert first.pixels.max() == 255
    phase = decoded(dicom_bytes(ds), tmp_path, spec=same_size(magnitude), frame=1, **ranges)
    assert phase.pixels.max() > 250
    # A store from before there were kinds has one range a series, and keeps it.
    alone = decoded(dicom_bytes(ds), tmp_path, spec=same_size(magnitude), frame=1, value_range=(0.0, 16380.0))
    assert 60 < alone.pixels.max() < 65
