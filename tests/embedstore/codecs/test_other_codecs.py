"""JPEG 2000, HTJ2K, JPEG-LS, JPEG XL, RLE and deflated frames: exact, of the size they say, whole or refused."""

from __future__ import annotations

import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
from pydicom.pixels.encoders import RLELosslessEncoder

from embedstore.codecs.deflated import decode_rle, inflate_frame
from embedstore.codecs.frame_size import FrameSize
from embedstore.codecs.jpeg2000 import decode_jpeg2000, encode_jpeg2000, jpeg2000_size
from embedstore.codecs.jpeg_stream import read_jpeg
from embedstore.codecs.jpegls import decode_jpegls
from embedstore.codecs.jpegxl import decode_jpegxl, jpegxl_size, recompressed_jpeg
from embedstore.errors import ImageRefused, Reason
from tests.image_files import picture_bytes

RNG = np.random.default_rng(5)
DEEP = RNG.integers(0, 4096, (67, 81)).astype(np.uint16)
GREY = (DEEP >> 4).astype(np.uint8)
RAMPS = np.stack([np.add.outer(np.arange(67), np.arange(81) * step) for step in (1, 2, 3)], -1).astype(
    np.uint8
)
COLOUR = RNG.integers(0, 256, (67, 81, 3), dtype=np.uint8)


def high_throughput(pixels, *, bits, signed):
    """Return HTJ2K of fewer than 16 bits: the level shift of 16 bits taken away, and SIZ told otherwise."""
    shift = 0 if signed else 1 << (bits - 1)
    words = (pixels.astype(np.int64) - shift + 32768).astype(np.uint16)
    stream = bytearray(imagecodecs.htj2k_encode(words, reversible=True))
    stream[stream.index(b"\xff\x51") + 40] = bits - 1 | (0x80 if signed else 0)
    return bytes(stream)


STREAMS = {
    "jpeg-2000": imagecodecs.jpeg2k_encode(DEEP, reversible=True, codecformat="j2k", bitspersample=12),
    "jpeg-2000 tiles": picture_bytes(GREY, "JPEG2000", tile_size=(32, 32), no_jp2=True),
    "htj2k": high_throughput(DEEP, bits=12, signed=False),
    "htj2k tiles": imagecodecs.htj2k_encode(DEEP, reversible=True, tile=(32, 32)),
    "htj2k tile-parts": imagecodecs.htj2k_encode(DEEP, reversible=True, tilepart=1, tlm=True),
}


@pytest.mark.parametrize("name", STREAMS)
def test_jpeg_2000_of_every_kind_is_exact_and_says_its_size(name):
    pixels, precision = {
        "jpeg-2000": (DEEP, 12), "jpeg-2000 tiles": (GREY, 8), "htj2k": (DEEP, 12),
    }.get(name, (DEEP, 16))  # fmt: skip
    np.testing.assert_array_equal(decode_jpeg2000(STREAMS[name]), pixels)
    assert jpeg2000_size(STREAMS[name]) == FrameSize(67, 81, 1, precision)


@pytest.mark.parametrize("bits", [9, 12, 13, 16])
def test_signed_jpeg_2000_of_any_precision_is_exact(bits):
    pixels = RNG.integers(-(1 << (bits - 1)), 1 << (bits - 1), (40, 50)).astype(np.int16)
    for stream in (
        high_throughput(pixels, bits=bits, signed=True),
        imagecodecs.jpeg2k_encode(pixels, reversible=True, codecformat="j2k", bitspersample=bits),
    ):
        assert decode_jpeg2000(stream).dtype == np.int16
        np.testing.assert_array_equal(decode_jpeg2000(stream), pixels)


@pytest.mark.parametrize("transformed", [True, False])
def test_colour_of_jpeg_2000_comes_by_pixel_with_and_without_a_component_transform(transformed):
    for stream in (
        imagecodecs.jpeg2k_encode(COLOUR, reversible=True, codecformat="j2k", mct=transformed),
        imagecodecs.htj2k_encode(COLOUR, reversible=True, rgb=transformed),
    ):
        np.testing.assert_array_equal(decode_jpeg2000(stream), COLOUR)


def test_high_throughput_streams_agree_with_openjpeg():
    smooth = np.add.outer(np.arange(90) * 20, np.arange(80) * 20).astype(np.uint16)
    lossy = imagecodecs.htj2k_encode(smooth, level=0.001, reversible=False)
    ours, theirs = decode_jpeg2000(lossy).astype(int), imagecodecs.jpeg2k_decode(lossy).astype(int)
    assert np.abs(ours - theirs).max() <= 1  # the irreversible filter ends in a rounding


def test_phantoms_are_encoded_without_loss():
    np.testing.assert_array_equal(decode_jpeg2000(encode_jpeg2000(DEEP, 12)), DEEP)


@pytest.mark.parametrize("name", STREAMS)
def test_jpeg_2000_that_lost_its_end_or_its_middle_is_refused(name):
    whole = STREAMS[name]
    start = whole.index(b"\xff\x93")
    for end in range(start + 2, len(whole) - 2, (len(whole) - start) // 20):
        for broken in (whole[:end], whole[:end] + b"\xff\xd9", whole[:end] + whole[end + 40 :]):
            with pytest.raises(ImageRefused, match="truncated or damaged") as refusal:
                decode_jpeg2000(broken)
            assert refusal.value.reason is Reason.UNREADABLE


def test_jpeg_2000_that_lost_a_tile_is_refused():
    whole = STREAMS["jpeg-2000 tiles"]
    start = whole.index(b"\xff\x90")
    length = int.from_bytes(whole[start + 6 : start + 10], "big")
    with pytest.raises(ImageRefused, match="9 tiles must be there; found 8"):
        decode_jpeg2000(whole[:start] + whole[start + length :])


def test_an_error_that_the_binding_of_openjph_swallows_is_raised(capfd):
    whole = STREAMS["htj2k"]
    middle = len(whole) // 2
    before = sys.unraisablehook
    with pytest.raises(ImageRefused, match="HTJ2K data are truncated or damaged"):
        decode_jpeg2000(whole[:middle] + bytes(800) + whole[middle + 800 :])
    assert sys.unraisablehook is before
    assert "Traceback" not in capfd.readouterr().err


def test_header_of_a_jp2_file_before_the_codestream_is_skipped():
    boxed = imagecodecs.jpeg2k_encode(DEEP, reversible=True, codecformat="jp2")
    assert boxed[4:8] == b"jP  "
    np.testing.assert_array_equal(decode_jpeg2000(boxed), DEEP)


@pytest.mark.parametrize("pixels", [GREY, DEEP, RAMPS], ids=["8 bits", "16 bits", "colour"])
def test_jpeg_ls_is_exact(pixels):
    stream = imagecodecs.jpegls_encode(pixels)
    np.testing.assert_array_equal(decode_jpegls(stream), pixels)
    assert read_jpeg(stream).size == FrameSize(67, 81, pixels[0, 0].size, 8 * pixels.dtype.itemsize)


def test_jpeg_ls_that_begins_with_its_frame_header_is_read():
    stream = imagecodecs.jpegls_encode(GREY)
    bare = b"\xff\xd8" + stream[stream.index(b"\xff\xf7") :]  # no SPIFF header
    assert bare[:4] == b"\xff\xd8\xff\xf7"
    np.testing.assert_array_equal(decode_jpegls(bare), GREY)


def test_near_lossless_jpeg_ls_errs_by_no_more_than_it_says():
    found = decode_jpegls(imagecodecs.jpegls_encode(DEEP, level=3))
    assert 0 < np.abs(found.astype(int) - DEEP).max() <= 3


def test_jpeg_ls_that_lacks_samples_is_refused():
    whole = imagecodecs.jpegls_encode(DEEP)
    start, middle = read_jpeg(whole).scans[0].start, len(whole) // 2
    for broken in (
        *(whole[:end] + b"\xff\xd9" for end in range(start, len(whole) - 3, 400)),
        whole[:middle] + whole[middle + 64 :],
        whole[:middle] + bytes(512) + whole[middle + 512 :],
    ):
        with pytest.raises((ImageRefused, imagecodecs.JpeglsError)):
            decode_jpegls(broken)


@pytest.mark.parametrize("container", [True, False])
@pytest.mark.parametrize(
    "shape", [(67, 81), (64, 64), (96, 72), (300, 200), (90, 160), (8, 8), (256, 8), (1, 700)]
)
def test_jpeg_xl_is_exact_and_its_header_is_read(shape, container):
    for pixels, bits in (
        (RNG.integers(0, 256, shape, dtype=np.uint8), 8),
        (RNG.integers(0, 1024, shape).astype(np.uint16), 10),
        (RNG.integers(0, 4096, shape).astype(np.uint16), 12),
        (RNG.integers(0, 1 << 14, shape).astype(np.uint16), 14),
        (RNG.integers(0, 1 << 16, shape).astype(np.uint16), 16),
        (RNG.integers(0, 256, (*shape, 3), dtype=np.uint8), 8),
    ):
        stream = imagecodecs.jpegxl_encode(
            pixels, lossless=True, bitspersample=bits, usecontainer=container, effort=1
        )
        assert jpegxl_size(stream) == FrameSize(*shape, 3 if pixels.ndim == 3 else 1, bits)
        np.testing.assert_array_equal(decode_jpegxl(stream), pixels)


def test_jpeg_xl_with_other_channels_is_unsupported():
    stream = imagecodecs.jpegxl_encode(RNG.integers(0, 256, (9, 9, 4), dtype=np.uint8), lossless=True)
    with pytest.raises(ImageRefused, match="channels beside") as refusal:
        jpegxl_size(stream)
    assert refusal.value.reason is Reason.UNSUPPORTED


def test_jpeg_xl_that_lacks_samples_is_refused():
    whole = imagecodecs.jpegxl_encode(DEEP, lossless=True, bitspersample=12, usecontainer=False)
    middle = len(whole) // 2
    for broken in (whole[:middle], whole[:-1], whole[:middle] + bytes(400) + whole[middle + 400 :]):
        with pytest.raises(imagecodecs.JpegxlError):
            decode_jpegxl(broken)


def test_recompressed_jpeg_comes_back_byte_for_byte():
    jpeg = imagecodecs.jpeg8_encode(GREY, 90)
    assert recompressed_jpeg(imagecodecs.jpegxl_encode_jpeg(jpeg)) == jpeg


@pytest.mark.parametrize("content", [b"", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"x" * 99])
def test_frame_without_a_header_is_refused(content):
    for size_of, kind in ((jpegxl_size, "JPEG XL"), (jpeg2000_size, "JPEG 2000")):
        with pytest.raises(ImageRefused, match=f"no {kind} header"):
            size_of(content)


def test_inflated_frame_must_have_exactly_its_length():
    deflater = zlib.compressobj(9, wbits=-15)
    frame = deflater.compress(bytes(range(200))) + deflater.flush()
    assert inflate_frame(frame, 200) == bytes(range(200))
    assert inflate_frame(frame + b"\0", 200) == bytes(range(200))  # padded to an even length
    for length, content in ((199, frame), (201, frame), (200, frame[:-3])):
        with pytest.raises(ImageRefused, match=f"a frame must have {length} bytes"):
            inflate_frame(content, length)


def test_run_length_encoded_segments_cannot_lend_each_other_bytes():
    # The first segment is 100 bytes short, the second as much too long: together they have the right length.
    short = bytes([127]) + bytes(128) + bytes([99]) + bytes(100)
    long = bytes([127]) + bytes(128) + bytes([127]) + bytes(128) + bytes([71]) + bytes(72)
    offsets = struct.pack("<16I", 2, 64, 64 + len(short), *[0] * 13)
    with pytest.raises((ImageRefused, RuntimeError)):
        decode_rle(offsets + short + long, rows=1, columns=278, samples=1, dtype=np.dtype(np.uint16))


def run_length_encoded(pixels):
    return RLELosslessEncoder.encode(
        pixels, rows=67, columns=81, samples_per_pixel=3 if pixels.ndim == 3 else 1, planar_configuration=0,
        bits_allocated=8 * pixels.dtype.itemsize, bits_stored=8 * pixels.dtype.itemsize, pixel_representation=0,
        photometric_interpretation="RGB" if pixels.ndim == 3 else "MONOCHROME2", number_of_frames=1,
        encoding_plugin="pydicom",
    )  # fmt: skip


@pytest.mark.parametrize(
    "pixels", [GREY, DEEP, COLOUR, COLOUR.astype(np.uint16) * 257], ids=["8", "16", "RGB", "RGB of 16 bits"]
)
def test_run_length_encoded_frame_is_exact_and_refused_when_short(pixels):
    sizes = {"rows": 67, "columns": 81, "samples": pixels[0, 0].size, "dtype": pixels.dtype}
    whole = run_length_encoded(pixels)
    np.testing.assert_array_equal(decode_rle(whole, **sizes), pixels)
    for end in range(64, len(whole) - 300, 1000):
        with pytest.raises((ImageRefused, RuntimeError)):
            decode_rle(whole[:end], **sizes)
    with pytest.raises(ImageRefused, match="segments must be there; found 9"):
        decode_rle(struct.pack("<I", 9) + whole[4:], **sizes)
