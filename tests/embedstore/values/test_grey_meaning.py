"""What a header says of display never refuses sound pixels, and never steers them further than the standard says."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from embedstore.errors import Note, Reason
from tests.dcmtk import needs_dcmtk, shown
from tests.image_files import assert_refused, dataset, decoded, dicom_bytes, same_size

ROWS, COLUMNS = np.mgrid[0:64, 0:64]
RAMP = (ROWS * 30 + COLUMNS * 25).astype(np.uint16)  # 0 ... 3465, 12 bits
STRETCHED = np.rint(RAMP / RAMP.max() * 255)


def picture(ds, tmp_path, **job):
    result = decoded(dicom_bytes(ds), tmp_path, spec=same_size(np.empty((ds.Rows, ds.Columns))), **job)
    return result.pixels, result.notes


def with_raw_window(ds, center, width, function=b""):
    """Return a file with a window in any bytes; the library would refuse to write them."""

    def element(tag, vr, value):
        value += b" " * (len(value) % 2)
        return tag + vr + len(value).to_bytes(2, "little") + value

    added = element(b"\x28\0\x50\x10", b"DS", center) + element(b"\x28\0\x51\x10", b"DS", width)
    if function:
        added += element(b"\x28\0\x56\x10", b"LO", function)
    content = dicom_bytes(ds)
    place = content.index(b"\xe0\x7f\x10\0")
    return content[:place] + added + content[place:]


@pytest.mark.parametrize(
    ("center", "width"),
    [
        (b"1000", b"0"), (b"1000", b"NaN"), (b"NaN", b"200"), (b"1000", b"-5"), (b"1000", b"inf"), (b"wide", b"9"),
        (b"1000", b""), (b"", b"200"), (b"1000", b"1,5"),
    ],
)  # fmt: skip
def test_window_that_means_nothing_is_no_window(tmp_path, center, width):
    content = with_raw_window(dataset(RAMP, bits_stored=12), center, width)
    result = decoded(content, tmp_path, spec=same_size(RAMP))
    np.testing.assert_array_equal(result.pixels, STRETCHED)
    assert result.notes == {Note.WINDOW_DROPPED}


def test_window_of_two_empty_elements_is_no_window_and_no_news(tmp_path):
    result = decoded(with_raw_window(dataset(RAMP, bits_stored=12), b"", b""), tmp_path, spec=same_size(RAMP))
    np.testing.assert_array_equal(result.pixels, STRETCHED)
    assert result.notes == frozenset()


def test_linear_window_below_one_is_read_as_exact(tmp_path):
    ds = dataset(RAMP, bits_stored=12, RescaleSlope="0.0001", RescaleIntercept="0")
    ds.WindowCenter, ds.WindowWidth = "0.15", "0.2"
    pixels, notes = picture(ds, tmp_path)
    # PS3.3 C.11.2.1.3.2: from 0.15 - 0.1 to 0.15 + 0.1.
    np.testing.assert_allclose(pixels, np.clip((RAMP * 0.0001 - 0.05) / 0.2, 0, 1) * 255, atol=0.51)
    assert notes == {Note.WINDOW_MENDED}


@pytest.mark.parametrize("function", [b"CUBIC", b"linear"])
def test_unknown_window_function_is_linear(tmp_path, function):
    plain = decoded(with_raw_window(dataset(RAMP, bits_stored=12), b"1000", b"700"), tmp_path)
    result = decoded(with_raw_window(dataset(RAMP, bits_stored=12), b"1000", b"700", function), tmp_path)
    np.testing.assert_array_equal(result.pixels, plain.pixels)
    assert result.notes == ({Note.WINDOW_MENDED} if function == b"CUBIC" else frozenset())


@pytest.mark.parametrize(("center", "width"), [(16384, 16384), (-5000, 100)])
def test_window_in_other_units_is_left_out(tmp_path, center, width):
    # SUV between 0 and 1.04, a window in stored values: every pixel would be black, or white.
    ds = dataset(
        RAMP, bits_stored=12, Modality="PT", RescaleSlope="0.0003", RescaleIntercept="0", Units="GML",
        WindowCenter=center, WindowWidth=width,
    )  # fmt: skip
    pixels, notes = picture(ds, tmp_path)
    np.testing.assert_array_equal(pixels, STRETCHED)
    assert notes == {Note.WINDOW_DROPPED}


def test_window_that_leaves_two_levels_is_followed(tmp_path):
    pixels, notes = picture(dataset(RAMP, bits_stored=12, WindowCenter=1000, WindowWidth=1), tmp_path)
    assert set(np.unique(pixels)) == {0, 255}
    np.testing.assert_array_equal(pixels == 255, RAMP > 999.5)
    assert notes == frozenset()


def test_window_of_an_image_of_one_value_is_no_news(tmp_path):
    ds = dataset(np.full((8, 8), 7, np.uint16), bits_stored=12, WindowCenter=1000, WindowWidth=10)
    pixels, notes = picture(ds, tmp_path)
    assert not pixels.any()
    assert notes == frozenset()


def test_short_voi_table_does_not_refuse_sound_pixels(tmp_path):
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 16])
    item.add_new(0x00283006, "OW", bytes(20))
    pixels, notes = picture(dataset(RAMP, bits_stored=12, VOILUTSequence=[item]), tmp_path)
    np.testing.assert_array_equal(pixels, STRETCHED)
    assert notes == {Note.WINDOW_DROPPED}
    windowed = dataset(RAMP, bits_stored=12, VOILUTSequence=[item], WindowCenter=1000, WindowWidth=1)
    pixels, notes = picture(windowed, tmp_path)
    np.testing.assert_array_equal(pixels == 255, RAMP > 999.5)
    assert notes == {Note.WINDOW_DROPPED}
    # A modality table is what the values mean.
    assert_refused(
        dicom_bytes(dataset(RAMP, ModalityLUTSequence=[item])), tmp_path, Reason.UNREADABLE, "only 10"
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["", "IDENTITY", "INVERSE", "LIN OD"])
def test_shape_is_followed_before_the_photometric_interpretation(tmp_path, photometric, shape):
    ds = dataset(RAMP, bits_stored=12, PhotometricInterpretation=photometric)
    if shape:
        ds.PresentationLUTShape = shape
    pixels, notes = picture(ds, tmp_path)
    inverted = shape == "INVERSE" or (photometric == "MONOCHROME1" and shape != "IDENTITY")
    np.testing.assert_array_equal(pixels, np.rint((1 - RAMP / RAMP.max()) * 255) if inverted else STRETCHED)
    contradiction = {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}
    assert notes == ({Note.SHAPE_CONTRADICTS} if (photometric, shape) in contradiction else frozenset())


@needs_dcmtk
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["", "IDENTITY", "INVERSE"])
def test_shape_looks_as_in_dcmtk(tmp_path, photometric, shape):
    ds = dataset(RAMP, bits_stored=12, PhotometricInterpretation=photometric)
    if shape:
        ds.PresentationLUTShape = shape
    theirs = shown(dicom_bytes(ds), tmp_path, "+Wm").astype(int)
    assert np.abs(theirs - picture(ds, tmp_path)[0]).max() <= 1


def intensity_table():
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 16])
    item.add_new(0x00283004, "LO", "US")
    curve = np.rint(65535 * np.expm1(np.arange(4096) / 4095 * 5) / np.expm1(5))
    item.add_new(0x00283006, "OW", curve.astype("<u2").tobytes())
    return item


XA_CLASSES = [uid.XRayAngiographicImageStorage, uid.XRayRadiofluoroscopicImageStorage]


@pytest.mark.parametrize("sop_class", XA_CLASSES)
@pytest.mark.parametrize("relation", ["LOG", "DISP", "LIN"])
@pytest.mark.parametrize("kind", ["table", "rescale"])
@pytest.mark.parametrize("window", [False, True])
def test_angiogram_is_shown_by_its_stored_values(tmp_path, sop_class, relation, kind, window):
    ds = dataset(
        RAMP, bits_stored=12, SOPClassUID=sop_class, Modality="XA", PixelIntensityRelationship=relation
    )
    if kind == "table":
        ds.ModalityLUTSequence = [intensity_table()]
    else:
        ds.RescaleSlope, ds.RescaleIntercept = 3, -1000
    if window:
        ds.WindowCenter, ds.WindowWidth = 1733, 3466
    pixels, notes = picture(ds, tmp_path)
    np.testing.assert_allclose(pixels, STRETCHED, atol=1)
    assert notes == {Note.INTENSITY_LUT}


@needs_dcmtk
@pytest.mark.parametrize("sop_class", XA_CLASSES)
@pytest.mark.parametrize("relation", ["LOG", "DISP", "LIN"])
def test_angiogram_looks_as_in_dcmtk(tmp_path, sop_class, relation):
    ds = dataset(
        RAMP, bits_stored=12, SOPClassUID=sop_class, Modality="XA", PixelIntensityRelationship=relation,
        ModalityLUTSequence=[intensity_table()], WindowCenter=1733, WindowWidth=3466,
    )  # fmt: skip
    theirs = shown(dicom_bytes(ds), tmp_path, "+Wi", "1").astype(int)
    assert np.abs(theirs - picture(ds, tmp_path)[0]).max() <= 1


def test_radiograph_keeps_its_modality_table_whatever_its_relation(tmp_path):
    item = intensity_table()
    ds = dataset(RAMP, bits_stored=12, PixelIntensityRelationship="LOG", ModalityLUTSequence=[item])
    pixels, notes = picture(ds, tmp_path)
    curve = np.frombuffer(item.LUTData, "<u2").astype(float)
    np.testing.assert_array_equal(pixels, np.rint(curve[RAMP] / curve[RAMP.max()] * 255))
    assert notes == frozenset()


def step_table(step):
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 12])
    item.add_new(0x00283006, "OW", np.where(np.arange(4096) < step, 0, 4095).astype("<u2").tobytes())
    return item


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_table_of_a_frame_is_applied_to_that_frame(tmp_path, window, shared):
    ds = dataset(np.stack([RAMP] * 3), frames=3, bits_stored=12, Modality="MG")
    ds.SOPClassUID = uid.BreastTomosynthesisImageStorage
    groups = []
    for number in range(3):
        voi, group = Dataset(), Dataset()
        voi.VOILUTSequence = [step_table(500 if shared else 500 * (number + 1))]
        if window:
            voi.WindowCenter, voi.WindowWidth = 2000, 4000
        group.FrameVOILUTSequence = [voi]
        groups.append(group)
    if shared:
        ds.SharedFunctionalGroupsSequence = groups[:1]
    else:
        ds.PerFrameFunctionalGroupsSequence = groups
    # What stands in the header beside functional groups is not of this frame.
    ds.WindowCenter, ds.WindowWidth = 100, 50
    for number in range(3):
        pixels, _ = picture(ds, tmp_path, frame=number)
        step = 500 if shared else 500 * (number + 1)
        np.testing.assert_array_equal(pixels, np.where(step > RAMP, 0, 255))


def ct(pixels, kind="", *, sop_class=uid.CTImageStorage, slope=0.01, **elements):
    ds = dataset(pixels, bits_stored=12, Modality="CT", RescaleSlope=slope, RescaleIntercept=0, **elements)
    ds.SOPClassUID = sop_class
    if kind:
        ds.RescaleType = kind
    return ds


CAPTURES = [
    uid.SecondaryCaptureImageStorage, uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["MGML", "Z_EFF", "ED", "EDW", "PCT", "US", "HU_MOD", "mgml "])
def test_ct_in_other_units_is_shown_over_its_own_range(tmp_path, kind):
    pixels, notes = picture(ct(RAMP, kind), tmp_path)
    np.testing.assert_array_equal(pixels, STRETCHED)
    assert notes == {Note.NOT_HOUNSFIELD}


@pytest.mark.parametrize("kind", ["HU", "hu ", ""])
def test_ct_in_hounsfield_units_has_its_three_windows(tmp_path, kind):
    pixels, notes = picture(ct(RAMP, kind, slope=1), tmp_path)
    # 40 HU, the middle of brain and soft tissue: (40 + 1024) / 2048, (40 + 135) / 350, 40 / 80.
    assert pixels[RAMP == 85][0].tolist() == [round(255 * 1109 / 2048), round(255 * 220 / 350), 255]
    assert notes == frozenset()


def test_map_of_multi_energy_ct_without_a_unit_is_no_hounsfield_image(tmp_path):
    ds = ct(RAMP, ImageType=["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"], MultienergyCTAcquisition="YES")
    pixels, notes = picture(ds, tmp_path)
    np.testing.assert_array_equal(pixels, STRETCHED)
    assert notes == {Note.NOT_HOUNSFIELD}


@pytest.mark.parametrize("sop_class", CAPTURES)
@pytest.mark.parametrize("rescaled", [False, True])
def test_captured_ct_is_a_picture(tmp_path, sop_class, rescaled):
    ds = ct(RAMP, sop_class=sop_class)
    if not rescaled:
        del ds.RescaleSlope, ds.RescaleIntercept
    pixels, notes = picture(ds, tmp_path)
    np.testing.assert_array_equal(pixels, STRETCHED)
    assert notes == frozenset()


def test_captured_mr_needs_no_series(tmp_path):
    ds = dataset(RAMP, bits_stored=12, Modality="MR", SOPClassUID=uid.SecondaryCaptureImageStorage)
    np.testing.assert_array_equal(picture(ds, tmp_path, value_range=(0.0, 10.0))[0], STRETCHED)


def test_capture_that_says_hounsfield_is_believed(tmp_path):
    ds = ct(RAMP, "HU", sop_class=uid.SecondaryCaptureImageStorage, slope=1)
    assert picture(ds, tmp_path)[0].shape == (64, 64, 3)


def parametric_map(values, padding, *, keyword="FloatPixelData", limit=None, modality="PT"):
    """Return a float file; the map's first 20 rows are padding."""
    ds = dataset(np.zeros((1, 1), np.uint8), Modality=modality)
    ds.SOPClassUID = uid.ParametricMapStorage
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, name)
    ds.Rows, ds.Columns = values.shape
    double = keyword.startswith("Double")
    ds.BitsAllocated = 64 if double else 32
    setattr(ds, keyword, values.astype("<f8" if double else "<f4").tobytes())
    if padding is not None:
        ds.add_new(0x00280123 if double else 0x00280122, "FD" if double else "FL", padding)
    if limit is not None:
        ds.add_new(0x00280125 if double else 0x00280124, "FD" if double else "FL", limit)
    return ds


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
@pytest.mark.parametrize(
    ("inside", "padding", "limit"),
    [
        (-1e6, -1e6, None), (np.nan, np.nan, None), (np.nan, np.nan, np.nan), (-1e6, -1e6, -1e5),
        (-5e5, -1e5, -1e6), (np.inf, np.inf, None), (-np.inf, -np.inf, -1.0),
    ],
)  # fmt: skip
def test_padding_of_a_float_map_is_black_and_outside_the_range(tmp_path, keyword, inside, padding, limit):
    values = np.add.outer(np.arange(64), np.arange(64)) * 0.37
    values[:20] = inside
    ds = parametric_map(values, padding, keyword=keyword, limit=limit)
    pixels, _ = picture(ds, tmp_path)
    assert not pixels[:20].any()
    # 20 * 0.37 is the least value outside of the padding and 126 * 0.37 the greatest.
    right = (np.add.outer(np.arange(20, 64), np.arange(64)) - 20) / 106 * 255
    assert np.abs(pixels[20:] - right).max() < 0.51


def test_nan_that_is_no_padding_is_refused(tmp_path):
    values = np.ones((4, 4))
    values[0, 0] = np.nan
    for padding in (None, -1.0):
        ds = parametric_map(values, padding)
        assert_refused(dicom_bytes(ds), tmp_path, Reason.NON_FINITE, "padding")


def test_float_map_that_is_all_padding_is_black(tmp_path):
    assert not picture(parametric_map(np.full((4, 4), np.nan), float("nan")), tmp_path)[0].any()


def test_float_mr_of_many_values_has_the_percentiles_of_numpy(tmp_path):
    values = np.random.default_rng(0).gamma(2.0, 3.0, (400, 400))
    values[:40] = np.nan
    pixels, _ = picture(parametric_map(values, float("nan"), modality="MR"), tmp_path)
    low, high = np.percentile(values[40:].astype(np.float32).astype(float), [1, 99])
    right = np.clip((values[40:] - low) / (high - low), 0, 1) * 255
    assert np.abs(pixels[40:] - right).max() < 0.55  # half a grey level, and 1/65,536 of the ranks
    assert not pixels[:40].any()


@pytest.mark.parametrize(("modality", "intercept"), [("DX", 0), ("DX", 500), ("PT", 0), ("CT", -1024)])
def test_rescale_slope_of_zero_is_no_rescale(tmp_path, modality, intercept):
    """It would make every value the same; dcmtk leaves it out, too. What a CT is in, nobody knows then."""
    ds = dataset(RAMP, bits_stored=12, Modality=modality, RescaleSlope=0, RescaleIntercept=intercept)
    if modality == "CT":
        ds.SOPClassUID = uid.CTImageStorage
    pixels, notes = picture(ds, tmp_path)
    np.testing.assert_array_equal(pixels, STRETCHED)
    assert notes == {Note.RESCALE_DROPPED} | ({Note.NOT_HOUNSFIELD} if modality == "CT" else set())


def test_parametric_map_of_a_ct_needs_no_hounsfield_units(tmp_path):
    values = np.add.outer(np.arange(64), np.arange(64)) * 0.37
    pixels, notes = picture(parametric_map(values, None, modality="CT"), tmp_path)
    assert np.abs(pixels - np.add.outer(np.arange(64), np.arange(64)) / 126 * 255).max() < 0.51
    assert notes == {Note.NOT_HOUNSFIELD}


def test_map_among_the_frames_of_an_enhanced_ct_is_no_hounsfield_image(tmp_path):
    ds = ct(np.stack([RAMP, RAMP]), frames=2, ImageType=["DERIVED", "PRIMARY", "VOLUME", "MIXED"], slope=1)
    ds.SOPClassUID = uid.EnhancedCTImageStorage
    ds.PerFrameFunctionalGroupsSequence = [Dataset(), Dataset()]
    for group, kind in zip(ds.PerFrameFunctionalGroupsSequence, ("NONE", "EFF_ATOMIC_NUM"), strict=True):
        frame_type = Dataset()
        frame_type.FrameType = ["DERIVED", "PRIMARY", "VOLUME", kind]
        group.CTImageFrameTypeSequence = [frame_type]
    first, _ = picture(ds, tmp_path, frame=0)
    second, notes = picture(ds, tmp_path, frame=1)
    assert first.shape == (64, 64, 3)
    np.testing.assert_array_equal(second, STRETCHED)
    assert notes == {Note.NOT_HOUNSFIELD}


@pytest.mark.parametrize("padding", [2048, 63488])
def test_signed_padding_written_as_a_pattern_is_known(tmp_path, padding):
    """-2048 of 12 stored bits, as the bits that are stored or allocated say it."""
    stored = RAMP.astype(np.int16) - 1500
    stored[:20] = -2048
    ds = dataset(stored, bits_stored=12)
    ds.add_new("PixelPaddingValue", "US", padding)
    pixels, _ = picture(ds, tmp_path)
    inside = stored[20:].astype(float)
    assert not pixels[:20].any()
    np.testing.assert_array_equal(
        pixels[20:], np.rint((inside - inside.min()) / (inside.max() - inside.min()) * 255)
    )


def test_ct_stored_as_colour_is_a_picture_also_where_its_channels_are_equal(tmp_path):
    grey = (RAMP // 16).astype(np.uint8)
    equal = dataset(np.stack([grey] * 3, axis=-1), Modality="CT")
    equal.SOPClassUID = uid.CTImageStorage
    pixels, notes = picture(equal, tmp_path)
    assert pixels.ndim == 2
    assert len(np.unique(pixels)) == len(np.unique(grey))
    assert notes == frozenset()
