"""DICOM files of every kind arrive as the pixels that pydicom and a hand calculation say, or are refused."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.sequence import Sequence

from embedstore.decoding.decode import DecodeLimits
from embedstore.errors import ImageRefused, Reason
from embedstore.images.dicom import open_dicom
from embedstore.images.dicom_syntax import CODECS, Codec
from embedstore.images.hostile import open_regular
from embedstore.images.stored_image import StoredImage
from tests.image_files import (
    LOSSLESS_SYNTAXES,
    assert_refused,
    dataset,
    decoded,
    dicom_bytes,
    picture_bytes,
    pydicom_file,
    same_size,
)

RNG = np.random.default_rng(0)
# Smooth enough that lossless codecs do something, rough enough that every bit counts.
# The encoder of JPEG 2000 wants sides of at least 32.
RAMP = np.add.outer(np.arange(40) * 55, np.arange(40) * 45) + RNG.integers(0, 60, (40, 40))
IMAGES = {
    "12-in-16": (RAMP.astype(np.uint16), 12),
    "16-bit": ((RAMP * 15).astype(np.uint16), 16),
    "signed": ((RAMP - 1500).astype(np.int16), 16),
    "8-bit": ((RAMP // 16).astype(np.uint8), 8),
    "odd": ((RAMP[:35, :33] // 16).astype(np.uint8), 8),
}


ENCAPSULATED = [
    name
    for name, syntax in LOSSLESS_SYNTAXES.items()
    if syntax in CODECS and CODECS[syntax] is not Codec.NATIVE
]


def stored(path, frame=0, **limits) -> StoredImage:
    numbers = {"max_pixels": 10**7, "max_frames": 1000, "max_inflated_bytes": 10**7} | limits
    with open_regular(str(path), max_bytes=10**8) as file:
        return open_dicom(file, **numbers).read(frame)


def stored_bytes(content, tmp_path, frame=0, **limits):
    path = tmp_path / "file.dcm"
    path.write_bytes(content)
    return stored(path, frame, **limits)


@pytest.mark.parametrize("name", LOSSLESS_SYNTAXES)
@pytest.mark.parametrize("image", IMAGES)
def test_one_image_has_one_digest_in_every_lossless_syntax(tmp_path, image, name):
    pixels, bits = IMAGES[image]
    plain = decoded(dicom_bytes(dataset(pixels, bits_stored=bits)), tmp_path)
    other = decoded(dicom_bytes(dataset(pixels, bits_stored=bits), LOSSLESS_SYNTAXES[name]), tmp_path)
    assert other.content_sha256 == plain.content_sha256
    np.testing.assert_array_equal(other.pixels, plain.pixels)
    found = stored_bytes(dicom_bytes(dataset(pixels, bits_stored=bits), LOSSLESS_SYNTAXES[name]), tmp_path)
    np.testing.assert_array_equal(found.pixels, pixels)


@pytest.mark.parametrize("name", [name for name in LOSSLESS_SYNTAXES if name != "implicit"])
def test_colour_has_one_digest_in_every_lossless_syntax(tmp_path, name):
    pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    result = stored_bytes(dicom_bytes(dataset(pixels), LOSSLESS_SYNTAXES[name]), tmp_path)
    np.testing.assert_array_equal(result.pixels, pixels)


def test_grey_dicom_has_the_digest_of_the_same_png(tmp_path):
    pixels = IMAGES["8-bit"][0]
    from_dicom = decoded(dicom_bytes(dataset(pixels)), tmp_path)
    from_png = decoded(picture_bytes(pixels), tmp_path)
    assert from_dicom.content_sha256 == from_png.content_sha256


def test_bits_allocated_beyond_those_stored_do_not_change_the_digest(tmp_path):
    pixels = IMAGES["8-bit"][0]
    wide = decoded(dicom_bytes(dataset(pixels.astype(np.uint16), bits_stored=8)), tmp_path)
    narrow = decoded(dicom_bytes(dataset(pixels)), tmp_path)
    assert wide.content_sha256 == narrow.content_sha256


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm", "MR_small_padded.dcm", "JPEG2000.dcm",
        "SC_rgb_rle_16bit.dcm", "SC_rgb_small_odd_big_endian.dcm", "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_jpeg_no_color_transform.dcm",
        "SC_rgb_jpeg_app14_dcmd.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm",
        "image_dfl.dcm", "rtdose_rle.dcm", "liver_1frame.dcm", "693_J2KI.dcm",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # pydicom remarks on its own odd files
def test_real_file_has_the_pixels_that_pydicom_reads(name):
    path = pydicom_file(name)
    ds = pydicom.dcmread(path)
    syntax = ds.file_meta.TransferSyntaxUID
    # Named, because pydicom takes whichever of its plugins is installed, and lossy ones differ.
    plugin = "" if not syntax.is_encapsulated else "pydicom" if syntax == uid.RLELossless else "pillow"
    theirs, _ = get_decoder(syntax).as_array(ds, index=0, decoding_plugin=plugin)
    ours = stored(path).pixels
    if ours.ndim == 2 and theirs.ndim == 3:
        theirs = theirs[..., 0]
    np.testing.assert_array_equal(ours, theirs)


def test_palette_becomes_the_colours_of_its_table():
    path = pydicom_file("examples_palette.dcm")
    ds = pydicom.dcmread(path)
    np.testing.assert_array_equal(stored(path).pixels, apply_color_lut(ds.pixel_array, ds))


def test_real_jpeg_lossless_equals_the_same_image_in_rle():
    lossless, rle = stored(pydicom_file("SC_rgb_jpeg_gdcm.dcm")), stored(pydicom_file("SC_rgb_rle.dcm"))
    np.testing.assert_array_equal(lossless.pixels, rle.pixels)


def test_every_frame_is_an_image_of_its_own(tmp_path):
    frames = RNG.integers(0, 4096, (3, 32, 32), dtype=np.uint16)
    for name in ("explicit", "deflated", *ENCAPSULATED):
        content = dicom_bytes(dataset(frames, frames=3, bits_stored=12), LOSSLESS_SYNTAXES[name])
        for number, pixels in enumerate(frames):
            np.testing.assert_array_equal(stored_bytes(content, tmp_path, number).pixels, pixels)
        with pytest.raises(ImageRefused, match="has 3") as refusal:
            stored_bytes(content, tmp_path, 3)
        assert refusal.value.reason is Reason.NO_PIXELS


def test_bits_above_those_stored_are_no_values(tmp_path):
    pixels = IMAGES["12-in-16"][0]
    dirty = (pixels | 0xA000).astype(np.uint16)  # overlays lived there once
    result = stored_bytes(dicom_bytes(dataset(dirty, bits_stored=12)), tmp_path)
    np.testing.assert_array_equal(result.pixels, pixels)


def test_radiograph_goes_through_rescale_window_stretch_and_inversion(tmp_path):
    # 2 x - 10 gives 0, 90, 190, 390; LINEAR_EXACT 190 +- 100 gives 0, 0, 0.5, 1; MONOCHROME1 turns it over.
    pixels = np.array([[5, 50], [100, 200]], np.uint16)
    ds = dataset(
        pixels, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=[190, 7], WindowWidth=[200, 7],
        VOILUTFunction="LINEAR_EXACT", PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    result = decoded(dicom_bytes(ds), tmp_path, spec=same_size(pixels))
    assert result.pixels.tolist() == [[255, 255], [128, 0]]


def test_ct_file_becomes_rgb_in_hounsfield_units(tmp_path):
    pixels = np.array([[0, 1024], [1064, 3000]], np.uint16)
    ds = dataset(pixels, bits_stored=12, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
    result = decoded(dicom_bytes(ds), tmp_path, spec=same_size(pixels))
    assert result.pixels.tolist() == [[[0, 0, 0], [128, 98, 0]], [[132, 128, 128], [255, 255, 255]]]


def test_ct_without_rescale_is_refused(tmp_path):
    ds = dataset(IMAGES["12-in-16"][0], Modality="CT")
    assert_refused(dicom_bytes(ds), tmp_path, Reason.UNSUPPORTED, match="Hounsfield")


def test_mr_slice_encodes_by_the_range_it_is_given(tmp_path):
    pixels = np.array([[0, 100], [150, 400]], np.uint16)
    content = dicom_bytes(dataset(pixels, Modality="MR"))
    result = decoded(content, tmp_path, spec=same_size(pixels), value_range=(100.0, 200.0))
    assert result.pixels.tolist() == [[0, 0], [128, 255]]


def test_lone_mr_file_is_a_series_of_all_its_frames(tmp_path):
    frames = np.array([[[0, 100], [50, 100]], [[200, 200], [150, 0]]], np.uint16)
    content = dicom_bytes(dataset(frames, frames=2, Modality="MR"))
    spec = replace(same_size(frames[0]), mri_range="min-max")
    result = decoded(content, tmp_path, spec=spec, frame=0)
    assert result.pixels.tolist() == [[0, 128], [64, 128]]  # of 0 ... 200, not of this frame's 0 ... 100


def test_modality_of_the_job_overrides_the_file(tmp_path):
    pixels = np.array([[0, 100], [150, 200]], np.uint16)
    content = dicom_bytes(dataset(pixels, Modality="OT", SOPClassUID=uid.MRImageStorage))
    as_mr = decoded(content, tmp_path, spec=same_size(pixels), modality="MR", value_range=(0.0, 400.0))
    assert as_mr.pixels.max() == 128


def without_preamble(content):
    return content[132:]


def without_meta(content):
    with_group = content[132:]
    length = struct.unpack_from("<I", with_group, 8)[0]
    return with_group[12 + length :]


@pytest.mark.parametrize("name", ["implicit", "explicit", "big-endian", "rle"])
def test_file_without_preamble_is_read(tmp_path, name):
    pixels = IMAGES["12-in-16"][0]
    content = dicom_bytes(dataset(pixels, bits_stored=12), LOSSLESS_SYNTAXES[name])
    result = decoded(without_preamble(content), tmp_path)
    assert result.content_sha256 == decoded(content, tmp_path).content_sha256


@pytest.mark.parametrize("name", ["implicit", "explicit", "big-endian"])
def test_native_file_without_meta_information_is_read(tmp_path, name):
    pixels = IMAGES["12-in-16"][0]
    content = dicom_bytes(dataset(pixels, bits_stored=12), LOSSLESS_SYNTAXES[name])
    result = decoded(without_meta(content), tmp_path)
    assert result.content_sha256 == decoded(content, tmp_path).content_sha256


def test_odd_length_pixels_are_read(tmp_path):
    pixels = IMAGES["odd"][0]
    content = dicom_bytes(dataset(pixels))
    # The writer pads 1,155 bytes to 1,156; some devices do not.
    assert struct.unpack_from("<I", content, len(content) - 1160)[0] == 1156
    unpadded = content[:-1160] + struct.pack("<I", 1155) + content[-1156:-1]
    np.testing.assert_array_equal(stored_bytes(unpadded, tmp_path).pixels, pixels)


def test_preamble_that_looks_like_tiff_is_still_dicom(tmp_path):
    pixels = IMAGES["8-bit"][0]
    content = dicom_bytes(dataset(pixels))
    dual = b"II*\0" + content[4:]
    assert decoded(dual, tmp_path).content_sha256 == decoded(content, tmp_path).content_sha256


@pytest.mark.parametrize("name", LOSSLESS_SYNTAXES)
def test_dicom_truncated_at_any_byte_is_refused(tmp_path, name):
    content = dicom_bytes(dataset(*IMAGES["odd"][:1]), LOSSLESS_SYNTAXES[name])
    # The last byte of a native or deflated file may be the padding of an odd number of pixels.
    whole = len(content) - (1 if name in {"implicit", "explicit", "big-endian"} else 0)
    for length in [*range(1, whole, 7), *range(whole - 16, whole)]:
        with pytest.raises(ImageRefused) as refusal:
            decoded(content[:length], tmp_path)
        assert refusal.value.reason in {Reason.UNREADABLE, Reason.NO_PIXELS}, length


def test_file_without_pixels_has_no_pixels(tmp_path):
    ds = dataset(IMAGES["8-bit"][0])
    del ds.PixelData
    ds.file_meta = None
    path = tmp_path / "file.dcm"
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    assert_refused(path, tmp_path, Reason.NO_PIXELS, match="no PixelData")


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm", "rtstruct.dcm"])
def test_real_file_that_is_no_image_has_no_pixels(tmp_path, name):
    assert_refused(pydicom_file(name), tmp_path, Reason.NO_PIXELS)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 60_000, "Columns": 60_000}, Reason.TOO_LARGE),
        ({"NumberOfFrames": 2_000_000_000}, Reason.TOO_LARGE),
        ({"NumberOfFrames": 500}, Reason.UNREADABLE),
        ({"Rows": 0}, Reason.NO_PIXELS),
        ({"Columns": 0}, Reason.NO_PIXELS),
        ({"NumberOfFrames": -3}, Reason.NO_PIXELS),
        ({"Rows": 41}, Reason.UNREADABLE),
        ({"SamplesPerPixel": 4}, Reason.UNREADABLE),
        ({"BitsAllocated": 7}, Reason.UNREADABLE),
        ({"BitsStored": 99}, Reason.UNREADABLE),
        ({"PhotometricInterpretation": "CMYK"}, Reason.UNSUPPORTED),
        ({"PhotometricInterpretation": ["MONOCHROME1", "MONOCHROME2"]}, Reason.UNSUPPORTED),
        ({"RescaleSlope": "1e308", "RescaleIntercept": "0"}, Reason.NON_FINITE),
    ],
    ids=str,
)
def test_lying_header_is_refused_before_anything_large_is_read(tmp_path, elements, reason):
    assert_refused(dicom_bytes(dataset(IMAGES["12-in-16"][0], **elements)), tmp_path, reason)


def test_nan_in_a_header_is_refused(tmp_path):
    ds = dataset(IMAGES["12-in-16"][0], RescaleSlope="8.5e1", RescaleIntercept="0")
    content = dicom_bytes(ds).replace(b"8.5e1 ", b"nan   ")
    assert_refused(content, tmp_path, Reason.UNREADABLE)


@pytest.mark.parametrize("name", ["jpeg-2000", "jpeg-ls", "jpeg-lossless", "htj2k", "jpeg-xl"])
@pytest.mark.parametrize(("element", "number"), [(0x10, 39), (0x11, 80)], ids=["rows", "columns"])
def test_codestream_of_another_size_than_the_header_is_refused(tmp_path, name, element, number):
    content = dicom_bytes(dataset(IMAGES["12-in-16"][0], bits_stored=12), LOSSLESS_SYNTAXES[name])
    head = struct.pack("<HH2sH", 0x0028, element, b"US", 2)
    lying = content.replace(head + struct.pack("<H", 40), head + struct.pack("<H", number))
    assert_refused(lying, tmp_path, Reason.UNREADABLE, match="the compressed frame 40 x 40 x 1")


def test_codestream_bomb_is_refused_by_its_header(tmp_path):
    content = bytearray(dicom_bytes(dataset(IMAGES["12-in-16"][0], bits_stored=12), uid.JPEG2000Lossless))
    siz = content.index(b"\xff\x4f\xff\x51") + 8
    content[siz : siz + 8] = struct.pack(">II", 60_000, 60_000)
    assert_refused(bytes(content), tmp_path, Reason.UNREADABLE, match="60000 x 60000")


def test_rle_bomb_is_refused_by_its_length(tmp_path):
    ds = dataset(IMAGES["8-bit"][0])
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 100_000  # 12.8 MB of zeros for 1,600 pixels
    content = dicom_bytes(ds, uid.RLELossless)
    path = tmp_path / "rle.dcm"
    path.write_bytes(content)
    ds = pydicom.dcmread(path)
    ds.PixelData = encapsulate([frame])
    ds.save_as(path)
    assert_refused(path, tmp_path, Reason.UNREADABLE, match="longer than its pixels")


def test_deflate_bomb_is_refused_without_being_inflated(tmp_path):
    content = dicom_bytes(dataset(IMAGES["8-bit"][0]), uid.DeflatedExplicitVRLittleEndian)
    meta_length = 132 + 12 + struct.unpack_from("<I", content, 140)[0]
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(200)) + deflater.flush()
    limits = DecodeLimits(file_bytes=10_000_000)
    assert_refused(content[:meta_length] + bomb, tmp_path, Reason.TOO_LARGE, match="inflate", limits=limits)


def test_recursion_bomb_of_sequences_is_refused(tmp_path):
    # An undefined-length private sequence, with an item, with the same sequence, 20,000 deep.
    content = dicom_bytes(dataset(IMAGES["8-bit"][0]))
    start = content.index(struct.pack("<HH", 0x0028, 0x0002))
    nested = (
        struct.pack("<HH2sHI", 0x0009, 0x1002, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    ) * 20_000
    assert_refused(content[:start] + nested + content[start:], tmp_path, Reason.UNREADABLE)


def test_sequences_some_levels_deep_are_read(tmp_path):
    pixels = IMAGES["8-bit"][0]
    ds = dataset(pixels)
    inner = Dataset()
    for _ in range(20):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner])
        inner = outer
    ds.ReferencedImageSequence = Sequence([inner])
    np.testing.assert_array_equal(stored_bytes(dicom_bytes(ds), tmp_path).pixels, pixels)


@pytest.mark.parametrize("length", [0xFFFFFFF0, 0x7FFFFFFF, 100_000])
def test_lying_element_length_reserves_no_memory(tmp_path, length):
    content = bytearray(dicom_bytes(dataset(IMAGES["8-bit"][0])))
    place = content.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OB")) + 8
    content[place : place + 4] = struct.pack("<I", length)
    result = stored_bytes(bytes(content), tmp_path)  # more than enough is claimed, all pixels are there
    np.testing.assert_array_equal(result.pixels, IMAGES["8-bit"][0])
    unknown = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, length)
    start = content.index(struct.pack("<HH", 0x0028, 0x0002))
    assert_refused(bytes(content[:start]) + unknown + bytes(content[start:]), tmp_path, Reason.NO_PIXELS)


@pytest.mark.parametrize("syntax_uid", [uid.MPEG2MPML, uid.UID("1.2.840.113619.5.2"), uid.HEVCMP51], ids=str)
def test_syntax_without_a_codec_is_unsupported(tmp_path, syntax_uid):
    content = dicom_bytes(dataset(IMAGES["8-bit"][0]), uid.RLELossless)
    path = tmp_path / "file.dcm"
    path.write_bytes(content)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax_uid
    ds.save_as(
        path, implicit_vr=False, little_endian=True
    ) if not syntax_uid.is_transfer_syntax else ds.save_as(path)
    assert_refused(path, tmp_path, Reason.UNSUPPORTED, match="no codec")


def test_what_pydicom_says_about_a_file_is_neither_logged_nor_printed(tmp_path, caplog, capfd):
    ds = dataset(IMAGES["8-bit"][0], RescaleSlope="8.5e1", RescaleIntercept="9")
    content = dicom_bytes(ds).replace(b"8.5e1 ", b"Secret")
    broken = dicom_bytes(dataset(IMAGES["8-bit"][0]), uid.JPEG2000Lossless)
    start = broken.index(b"\xff\x52")  # COD, which says how the image was coded
    for hostile in (content, broken[:start] + bytes(20) + broken[start + 20 :]):
        assert_refused(hostile, tmp_path, Reason.UNREADABLE)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_refusal_of_a_header_never_quotes_a_value(tmp_path):
    ds = dataset(IMAGES["8-bit"][0], RescaleSlope="8.5e1", RescaleIntercept="9")
    content = dicom_bytes(ds).replace(b"8.5e1 ", b"Secret")
    assert_refused(content, tmp_path, Reason.UNREADABLE)  # the helper looks for the word
