"""Stored values mean what PS3.3 C.11 says, checked by hand and against pydicom's own processing."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.images.rendering import render, render_ct, render_mr, render_radiograph
from embedstore.images.series_range import ValueCounts, count_values, merge_counts, series_range
from embedstore.images.stored_image import DICOM, RASTER, StoredImage, content_sha256, grey_if_equal
from embedstore.values.grey_meaning import grey_meaning
from embedstore.values.window import (
    GreyMeaning,
    LookupTable,
    Rescale,
    Window,
    levels_of,
    look_up,
    to_modality,
)
from embedstore.values.window import apply_voi as apply_our_voi
from tests.image_files import dataset


def stored(pixels, *, modality="DX", container=DICOM, bits=16, **meaning):
    return StoredImage(np.asarray(pixels), container, modality, GreyMeaning(**meaning), bits)


def with_original_encoding(ds):
    ds.set_original_encoding(False, True)
    return ds


def lut_item(first, entries, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = list(entries)
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item["LUTData"].VR = "US"
    return with_original_encoding(item)


@pytest.mark.parametrize(
    ("window", "values", "expected"),
    [
        # LINEAR, c = 40, w = 5: the ramp runs from 39.5 - 2 to 39.5 + 2.
        (Window(40, 5), [37, 37.5, 39.5, 40.5, 41.5, 42], [0, 0, 0.5, 0.75, 1, 1]),
        (Window(40, 1), [39, 39.5, 40], [0, 0, 1]),
        (Window(40, 4, "LINEAR_EXACT"), [37, 38, 40, 41, 42, 43], [0, 0, 0.5, 0.75, 1, 1]),
        # SIGMOID: 1 / (1 + exp(-4 (x - c) / w)); at c + w / 4 that is 1 / (1 + 1 / e).
        (Window(40, 4, "SIGMOID"), [40, 41, 39], [0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))]),
        (Window(0, 1e-300, "LINEAR_EXACT"), [-1, 1], [0, 1]),
        (Window(0, 1e-300, "SIGMOID"), [-1, 1], [0, 1]),
    ],
)
def test_windows_follow_the_standard(window, values, expected):
    np.testing.assert_allclose(apply_our_voi(np.array(values, float), window), expected, atol=1e-12)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2.5, 7), (0.37, 0)])
@pytest.mark.parametrize(("center", "width"), [(40, 80), (300.5, 1500.25), (0, 200)])
def test_windows_agree_with_pydicom(function, slope, intercept, center, width):
    pixels = np.arange(-2048, 2048, dtype=np.int16)
    ds = dataset(
        pixels.reshape(64, 64), bits_stored=12, RescaleSlope=slope, RescaleIntercept=intercept,
        WindowCenter=[center, 1], WindowWidth=[width, 2], VOILUTFunction=function,
    )  # fmt: skip
    theirs = apply_windowing(apply_modality_lut(pixels, ds), ds)
    # pydicom spreads the window over the range of all possible values, we over 0 ... 1.
    low, high = -2048 * slope + intercept, 2047 * slope + intercept
    meaning = grey_meaning(ds, 0)
    assert isinstance(meaning.voi, Window)
    ours = apply_our_voi(to_modality(pixels.astype(float), meaning.modality), meaning.voi)
    np.testing.assert_allclose(ours, (theirs - low) / (high - low), atol=1e-9)


@pytest.mark.parametrize("first", [-100, 0, 50])
def test_modality_lut_sequence_agrees_with_pydicom(first):
    pixels = np.arange(-200, 200, dtype=np.int16)
    entries = np.random.default_rng(0).integers(0, 65536, 256).tolist()
    ds = with_original_encoding(
        dataset(pixels.reshape(20, 20), ModalityLUTSequence=[lut_item(first, entries)])
    )
    theirs = apply_modality_lut(pixels, ds)
    np.testing.assert_array_equal(to_modality(pixels.astype(float), grey_meaning(ds, 0).modality), theirs)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_voi_lut_sequence_agrees_with_pydicom(bits):
    # pydicom looks an 8-bit table up with 8-bit indices, so no index here goes beyond them.
    pixels = np.arange(0, 256 if bits == 8 else 400, dtype=np.uint16)
    entries = np.random.default_rng(1).integers(0, 1 << bits, 200).tolist()
    item = lut_item(20, entries, bits)
    ds = with_original_encoding(dataset(pixels.reshape(-1, 16), VOILUTSequence=[item]))
    voi = grey_meaning(ds, 0).voi
    assert voi is not None
    np.testing.assert_array_equal(apply_our_voi(pixels.astype(float), voi), apply_voi(pixels, ds))


def test_voi_lut_comes_before_a_window():
    ds = with_original_encoding(dataset(np.zeros((2, 2), np.uint16), WindowCenter=1, WindowWidth=2))
    assert isinstance(grey_meaning(ds, 0).voi, Window)
    ds.VOILUTSequence = [lut_item(0, [1, 2])]
    assert isinstance(grey_meaning(ds, 0).voi, LookupTable)


def test_lookup_table_of_65536_entries_says_zero():
    ds = with_original_encoding(dataset(np.zeros((2, 2), np.uint16)))
    ds.VOILUTSequence = [lut_item(0, np.arange(65536)[::-1].tolist())]
    voi = grey_meaning(ds, 0).voi
    assert isinstance(voi, LookupTable)
    assert len(voi.entries) == 65536
    assert look_up(np.array([0.0, 65535.0]), voi).tolist() == [65535, 0]


def test_lookup_table_as_packed_bytes_is_unpacked():
    item = lut_item(0, [1, 2, 3, 4], 8)
    item.LUTData = bytes([1, 2, 3, 4])
    item["LUTData"].VR = "OW"
    ds = with_original_encoding(dataset(np.zeros((2, 2), np.uint8), VOILUTSequence=[item]))
    voi = grey_meaning(ds, 0).voi
    assert isinstance(voi, LookupTable)
    assert voi.entries.tolist() == [1, 2, 3, 4]


def test_short_modality_table_is_refused():
    item = lut_item(0, [1, 2, 3])
    item.LUTDescriptor = [10, 0, 16]
    ds = with_original_encoding(dataset(np.zeros((2, 2), np.uint16), ModalityLUTSequence=[item]))
    with pytest.raises(ImageRefused, match="10 entries has only 3"):
        grey_meaning(ds, 0)


@pytest.mark.parametrize(
    "window", [Window(1, 0), Window(1, 0.5), Window(1, 0, "SIGMOID"), Window(1, -3, "LINEAR_EXACT")]
)
def test_window_without_width_is_refused(window):
    with pytest.raises(ImageRefused, match="width") as refusal:
        apply_our_voi(np.zeros(1), window)
    assert refusal.value.reason is Reason.UNREADABLE


def test_unknown_window_function_is_refused():
    with pytest.raises(ImageRefused, match="VOILUTFunction"):
        apply_our_voi(np.zeros(1), Window(1, 2, "CUBIC"))


def test_functional_groups_give_each_frame_its_own_meaning():
    def group(slope):
        inner, outer = Dataset(), Dataset()
        inner.RescaleSlope, inner.RescaleIntercept = slope, -slope
        outer.PixelValueTransformationSequence = [inner]
        return outer

    shared, window = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 50, 100
    shared.FrameVOILUTSequence = [window]
    ds = dataset(np.zeros((2, 2, 2), np.uint16), frames=2)
    ds.PerFrameFunctionalGroupsSequence = [group(2), group(3)]
    ds.SharedFunctionalGroupsSequence = [shared]
    assert grey_meaning(ds, 0).modality == Rescale(2, -2)
    assert grey_meaning(ds, 1).modality == Rescale(3, -3)
    assert grey_meaning(ds, 1).voi == Window(50, 100)


@pytest.mark.parametrize(
    ("dtype", "value", "limit", "expected"),
    [
        (np.int16, 63536, None, (-2000, -2000)),  # written as US in a signed image
        (np.uint16, 0, 5, (0, 5)),
        (np.uint16, 10, 5, (5, 10)),
    ],
)
def test_padding_has_the_type_of_the_pixels(dtype, value, limit, expected):
    ds = dataset(np.zeros((2, 2), dtype), PixelPaddingValue=value)
    ds["PixelPaddingValue"].VR = "US"
    if limit is not None:
        ds.PixelPaddingRangeLimit = limit
    assert grey_meaning(ds, 0).padding == expected


def test_levels_cover_the_whole_range_of_signed_16_bit():
    pixels = np.array([[-32768, 32767]], np.int16)
    levels = levels_of(pixels, GreyMeaning())
    assert levels.stored[levels.index].tolist() == [[-32768, 32767]]
    assert levels.present().sum() == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32])
def test_levels_give_every_pixel_its_value(dtype):
    info = np.finfo(dtype) if np.issubdtype(dtype, np.floating) else np.iinfo(dtype)
    pixels = np.random.default_rng(2).uniform(info.min / 2, info.max / 2, (9, 7)).astype(dtype)
    levels = levels_of(pixels, GreyMeaning())
    np.testing.assert_array_equal(levels.stored[levels.index], pixels.astype(float))


def test_float_pixels_must_be_finite():
    with pytest.raises(ImageRefused) as refusal:
        levels_of(np.array([[1.0, np.nan]], np.float32), GreyMeaning())
    assert refusal.value.reason is Reason.NON_FINITE


def test_rescale_must_stay_finite():
    with pytest.raises(ImageRefused, match="RescaleSlope") as refusal:
        to_modality(np.array([1e10]), Rescale(1e300, 0))
    assert refusal.value.reason is Reason.NON_FINITE


def test_radiograph_is_stretched_from_its_least_to_its_greatest_value():
    # 100 -> 0, 200 -> 255, 140 -> 102
    assert render_radiograph(stored([[100, 140, 200]])).tolist() == [[0, 102, 255]]


def test_monochrome1_is_inverted_after_the_stretch():
    assert render_radiograph(stored([[100, 140, 200]], inverted=True)).tolist() == [[255, 153, 0]]


def test_window_is_applied_before_the_stretch():
    # LINEAR_EXACT 100 +- 50 of the values 0, 75, 100, 500 is 0, 0.25, 0.5, 1.
    image = stored([[0, 75, 100, 500]], voi=Window(100, 100, "LINEAR_EXACT"))
    assert render_radiograph(image).tolist() == [[0, 64, 128, 255]]


def test_padding_is_black_and_outside_the_range():
    image = stored([[0, 0, 100, 200]], padding=(0, 0))
    assert render_radiograph(image).tolist() == [[0, 0, 0, 255]]
    inverted = stored([[0, 0, 100, 200]], padding=(0, 0), inverted=True)
    assert render_radiograph(inverted).tolist() == [[0, 0, 255, 0]]


@pytest.mark.parametrize("meaning", [{}, {"inverted": True}, {"padding": (7, 7)}], ids=str)
def test_constant_radiograph_is_black(meaning):
    assert render_radiograph(stored([[7, 7], [7, 7]], **meaning)).tolist() == [[0, 0], [0, 0]]


def test_ct_is_three_windows_in_hounsfield_units():
    # Stored 1024 is 0 HU: red (0 + 1024) / 2048, green (0 + 135) / 350, blue 0.
    meaning = GreyMeaning(modality=Rescale(1, -1024))
    image = StoredImage(np.array([[0, 1024, 1064, 4000]]), DICOM, "CT", meaning, 12)
    expected = [
        [0, 0, 0],
        [round(255 * 1024 / 2048), round(255 * 135 / 350), 0],
        [round(255 * 1064 / 2048), round(255 * 175 / 350), round(255 * 0.5)],
        [255, 255, 255],
    ]
    assert np.abs(render_ct(image)[0].astype(int) - expected).max() == 0


def test_ct_without_hounsfield_units_is_refused():
    with pytest.raises(ImageRefused, match="Hounsfield") as refusal:
        render_ct(stored([[0, 1]], modality="CT"))
    assert refusal.value.reason is Reason.UNSUPPORTED


def test_mr_uses_the_range_of_its_series_and_clips_beyond():
    image = stored([[0, 100, 150, 200, 900]], modality="MR", voi=Window(10, 1))
    assert render_mr(image, (100, 200)).tolist() == [[0, 0, 128, 255, 255]]
    assert render_mr(image, (100, 100)).tolist() == [[0, 0, 0, 0, 0]]


def test_mr_without_a_range_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="value_range"):
        render(stored([[0, 1]], modality="MR"), None)


def test_eight_bit_picture_is_taken_as_it_is():
    pixels = np.array([[100, 140, 200]], np.uint8)
    assert render(StoredImage(pixels, RASTER), None).tolist() == pixels.tolist()
    assert render(StoredImage(pixels.astype(np.uint16), RASTER), None).tolist() == [[0, 102, 255]]


def test_deep_colour_is_scaled_by_its_bits():
    pixels = np.array([[[0, 1023, 512]]], np.uint16)
    assert render(StoredImage(pixels, DICOM, "XC", GreyMeaning(), 10), None).tolist() == [[[0, 255, 128]]]


@pytest.mark.parametrize("mri_range", ["percentile-1-99", "min-max"])
def test_series_range_equals_numpy_over_all_pixels(mri_range):
    rng = np.random.default_rng(5)
    slices = [rng.gamma(2, 200, (31, 17)).astype(np.uint16) for _ in range(5)]
    slopes = [1.0, 2.5, 1.0, 0.5, 3.0]
    pieces = [
        count_values(StoredImage(pixels, DICOM, "MR", GreyMeaning(modality=Rescale(slope, 3)), 16))
        for pixels, slope in zip(slices, slopes, strict=True)
    ]
    every = np.concatenate([(p * s + 3).ravel() for p, s in zip(slices, slopes, strict=True)])
    wanted = [every.min(), every.max()] if mri_range == "min-max" else np.percentile(every, [1, 99])
    np.testing.assert_allclose(series_range(merge_counts(pieces), mri_range), wanted, rtol=1e-12)


def test_counts_merge_in_any_order():
    rng = np.random.default_rng(6)
    pieces = [count_values(stored(rng.integers(0, 50, (8, 8)), modality="MR")) for _ in range(4)]
    forward = merge_counts(pieces)
    nested = merge_counts([merge_counts(pieces[2:][::-1]), merge_counts(pieces[:2])])
    np.testing.assert_array_equal(forward.values, nested.values)
    np.testing.assert_array_equal(forward.counts, nested.counts)
    assert forward.counts.sum() == 4 * 64


def test_padding_is_not_counted():
    counts = count_values(stored([[0, 0, 5, 5, 9]], modality="MR", padding=(0, 0)))
    assert counts.values.tolist() == [5, 9]
    assert counts.counts.tolist() == [2, 1]


def test_range_of_nothing_is_zero_and_of_an_unknown_name_an_error():
    nothing = merge_counts([])
    assert series_range(nothing, "min-max") == (0, 0)
    with pytest.raises(UsageError, match="mri_range"):
        series_range(nothing, "mean")


def test_one_pixel_is_its_own_range():
    counts = ValueCounts(np.array([7.0]), np.array([1]))
    assert series_range(counts, "percentile-1-99") == (7, 7)


def test_digest_knows_type_shape_and_values_but_not_layout():
    pixels = np.arange(6, dtype="<u2").reshape(2, 3)
    same = content_sha256(pixels)
    assert len(same) == 32
    assert content_sha256(np.asfortranarray(pixels)) == same
    assert content_sha256(pixels.astype(">u2")) == same
    for other in (pixels.astype("<i2"), pixels.reshape(3, 2), pixels + np.uint16(1)):
        assert content_sha256(other) != same


def test_equal_channels_are_grey_and_one_pixel_of_colour_is_not():
    grey = np.random.default_rng(0).integers(0, 256, (5, 4), dtype=np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(grey_if_equal(colour), grey)
    colour[-1, -1, 2] ^= 1
    assert grey_if_equal(colour).shape == (5, 4, 3)
