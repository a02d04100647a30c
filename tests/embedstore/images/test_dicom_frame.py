"""Encapsulated frames inside DICOM: one picture has one digest in every codestream, whatever its sign and bits."""

from __future__ import annotations

import zlib

import imagecodecs
import numpy as np
import pytest
from pydicom import uid

from embedstore.errors import Reason
from embedstore.images.dicom import open_dicom
from embedstore.images.dicom_syntax import (
    CODECS,
    JPEGXL,
    DeflatedImageFrame,
    EncapsulatedUncompressed,
    JPEGXLRecompression,
    syntax_name,
)
from embedstore.images.hostile import open_regular
from tests.embedstore.codecs.test_other_codecs import high_throughput
from tests.image_files import (
    LOSSLESS_SYNTAXES,
    assert_refused,
    dataset,
    decoded,
    dicom_bytes,
    encapsulated_bytes,
    encoded_bytes,
    jpeg_lossless,
    picture_bytes,
    pydicom_file,
)

RNG = np.random.default_rng(11)
DEEP = np.add.outer(np.arange(48) * 40, np.arange(56) * 30).astype(np.uint16)  # 0 ... 3530, 12 bits
SIGNED = DEEP.astype(np.int16) - 2000
COLOUR = RNG.integers(0, 256, (48, 56, 3), dtype=np.uint8)


def stored(content, tmp_path, frame=0):
    path = tmp_path / "file.dcm"
    path.write_bytes(content)
    with open_regular(str(path), max_bytes=10**8) as file:
        return open_dicom(file, max_pixels=10**7, max_frames=9, max_inflated_bytes=10**7).read(frame).pixels


@pytest.mark.parametrize("name", LOSSLESS_SYNTAXES)
def test_overlay_above_the_stored_bits_is_no_pixel_value_in_any_syntax(tmp_path, name):
    marked = DEEP.copy()
    marked[10:20, 10:20] |= 0x8000
    content = dicom_bytes(dataset(marked, bits_stored=16), LOSSLESS_SYNTAXES[name])
    # BitsStored and HighBit are told after encoding, so that the codestream keeps the overlay.
    order = "big" if name == "big-endian" else "little"
    for element, now, was in ((0x0101, 12, 16), (0x0102, 11, 15)):
        content = with_number(content, element, was, now, order, explicit=name != "implicit")
    if name == "deflated":
        pytest.skip("the header is deflated with the pixels; the pixels are those of explicit VR")
    np.testing.assert_array_equal(stored(content, tmp_path), DEEP)


def with_number(content, element, was, now, order, *, explicit):
    tag = (0x0028).to_bytes(2, order) + element.to_bytes(2, order)
    head = tag + (b"US" + (2).to_bytes(2, order) if explicit else (2).to_bytes(4, order))
    return content.replace(head + was.to_bytes(2, order), head + now.to_bytes(2, order))


SIGNED_STREAMS = {
    "jpeg-lossless": (uid.JPEGLosslessSV1, jpeg_lossless(SIGNED, 12)),
    "jpeg-lossless 16": (uid.JPEGLosslessSV1, jpeg_lossless(SIGNED, 16)),
    "jpeg-ls": (uid.JPEGLSLossless, imagecodecs.jpegls_encode(SIGNED.view(np.uint16))),
    "jpeg-2000": (
        uid.JPEG2000Lossless,
        imagecodecs.jpeg2k_encode(SIGNED, reversible=True, codecformat="j2k", bitspersample=12),
    ),
    "jpeg-2000 unsigned": (
        uid.JPEG2000Lossless,
        imagecodecs.jpeg2k_encode(
            SIGNED.view(np.uint16) & 0xFFF, reversible=True, codecformat="j2k", bitspersample=12
        ),
    ),
    "htj2k": (uid.HTJ2KLossless, high_throughput(SIGNED, bits=12, signed=True)),
    "htj2k unsigned": (
        uid.HTJ2KLossless, high_throughput(SIGNED.view(np.uint16) & 0xFFF, bits=12, signed=False),
    ),
    "jpeg-xl": (
        JPEGXL,
        imagecodecs.jpegxl_encode(SIGNED.view(np.uint16) & 0xFFF, lossless=True, bitspersample=12),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNED_STREAMS)
def test_signed_values_of_12_bits_come_back_from_codecs_without_a_sign(tmp_path, name):
    syntax, stream = SIGNED_STREAMS[name]
    content = encoded_bytes(SIGNED, syntax, stream, bits_stored=12)
    np.testing.assert_array_equal(stored(content, tmp_path), SIGNED)
    plain = decoded(dicom_bytes(dataset(SIGNED, bits_stored=12)), tmp_path)
    assert decoded(content, tmp_path).content_sha256 == plain.content_sha256


def test_unsigned_values_come_back_from_a_signed_codestream(tmp_path):
    stream = imagecodecs.jpeg2k_encode(
        (DEEP - 4096 * (DEEP >= 2048)).astype(np.int16), reversible=True, codecformat="j2k", bitspersample=12
    )
    content = encoded_bytes(DEEP, uid.JPEG2000Lossless, stream, bits_stored=12)
    np.testing.assert_array_equal(stored(content, tmp_path), DEEP)


@pytest.mark.parametrize("precision", [10, 11])
def test_codestream_of_fewer_bits_than_are_stored_is_read(tmp_path, precision):
    pixels = DEEP >> (12 - precision)
    for syntax, stream in (
        (uid.JPEGLosslessSV1, jpeg_lossless(pixels, precision)),
        (
            uid.JPEG2000Lossless,
            imagecodecs.jpeg2k_encode(pixels, reversible=True, codecformat="j2k", bitspersample=precision),
        ),
        (uid.HTJ2KLossless, high_throughput(pixels, bits=precision, signed=False)),
        (JPEGXL, imagecodecs.jpegxl_encode(pixels, lossless=True, bitspersample=precision)),
    ):
        content = encoded_bytes(pixels, syntax, stream, bits_stored=12)
        np.testing.assert_array_equal(stored(content, tmp_path), pixels)


def test_extended_jpeg_of_12_bits_is_read(tmp_path):
    pixels = stored(pydicom_file("JPGExtended.dcm").read_bytes(), tmp_path)
    assert pixels.dtype == np.uint16
    assert pixels.max() > 255


def test_recompressed_jpeg_has_the_pixels_of_the_jpeg(tmp_path):
    grey = (DEEP >> 4).astype(np.uint8)
    for pixels in (grey, COLOUR):
        jpeg = picture_bytes(pixels, "JPEG", quality=90)
        elements = {"PhotometricInterpretation": "YBR_FULL_422"} if pixels.ndim == 3 else {}
        as_jpeg = encoded_bytes(pixels, uid.JPEGBaseline8Bit, jpeg, **elements)
        as_jpeg_xl = encoded_bytes(
            pixels, JPEGXLRecompression, imagecodecs.jpegxl_encode_jpeg(jpeg), **elements
        )
        np.testing.assert_array_equal(stored(as_jpeg_xl, tmp_path), stored(as_jpeg, tmp_path))


def test_xyb_of_jpeg_xl_arrives_as_rgb(tmp_path):
    smooth = np.stack([DEEP >> 4, DEEP[::-1] >> 4, DEEP >> 5], -1).astype(np.uint8)
    lossy = imagecodecs.jpegxl_encode(smooth, distance=1.0)
    found = stored(encoded_bytes(smooth, JPEGXL, lossy, PhotometricInterpretation="XYB"), tmp_path)
    assert np.abs(found.astype(int) - smooth).mean() < 3


def test_ycbcr_that_an_adobe_segment_names_is_converted_once(tmp_path):
    # pydicom 3.0.2 follows the segment and then the header, too: orange becomes green.
    orange = np.full((48, 56, 3), (200, 60, 30), np.uint8)
    jfif = picture_bytes(orange, "JPEG", quality=95)
    adobe = jfif[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" + jfif[20:]
    for photometric in ("YBR_FULL_422", "RGB"):
        content = encoded_bytes(orange, uid.JPEGBaseline8Bit, adobe, PhotometricInterpretation=photometric)
        assert np.abs(stored(content, tmp_path).astype(int) - orange).max() <= 1


def test_ycbcr_beyond_8_bits_is_unsupported(tmp_path):
    deep = RNG.integers(0, 4096, (48, 56, 3)).astype(np.uint16)
    stream = jpeg_lossless(deep, 12)
    content = encoded_bytes(
        deep, uid.JPEGLosslessSV1, stream, bits_stored=12, PhotometricInterpretation="YBR_FULL"
    )
    assert_refused(content, tmp_path, Reason.UNSUPPORTED, match="YBR_FULL of uint16 has no conversion")


@pytest.mark.parametrize("syntax", [DeflatedImageFrame, EncapsulatedUncompressed], ids=syntax_name)
def test_frames_of_single_bits_begin_at_whole_bytes(tmp_path, syntax):
    masks = RNG.integers(0, 2, (2, 5, 7), dtype=np.uint8)  # 35 bits, so five bytes each
    frames = [np.packbits(mask.ravel(), bitorder="little").tobytes() for mask in masks]
    if syntax == DeflatedImageFrame:
        frames = [zlib.compress(frame)[2:-4] for frame in frames]
    ds = dataset(masks, frames=2, BitsAllocated=1, BitsStored=1, HighBit=0)
    content = encapsulated_bytes(ds, syntax, frames)
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(stored(content, tmp_path, number), mask)


def test_frame_longer_than_its_pixels_is_refused(tmp_path):
    pixels = RNG.integers(0, 256, (6, 6), dtype=np.uint8)
    for extra in (b"\0\0", b"\0" * 36):
        content = encoded_bytes(pixels, EncapsulatedUncompressed, pixels.tobytes() + extra)
        assert_refused(content, tmp_path, Reason.UNREADABLE, match="a frame must have 36 bytes")


def test_every_syntax_has_a_name_and_a_codec():
    assert len(CODECS) == 21
    assert syntax_name(JPEGXL) == "JPEG XL (1.2.840.10008.1.2.4.112)"
    assert syntax_name(uid.JPEG2000).startswith("JPEG 2000 Image Compression (1.2.840")
    assert syntax_name(uid.UID("1.2.3.4")) == "'1.2.3.4'"
