"""Pictures of every kind arrive as the pixels that Pillow shows, the right way up, or are refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from embedstore.errors import ImageRefused, Reason
from embedstore.images.raster import raster_format, read_raster
from tests.image_files import assert_refused, decoded, picture_bytes, png_with_size, same_size

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (12, 12), dtype=np.uint16)


def stored(content, frame=0):
    name = raster_format(content[:16])
    assert name is not None
    return read_raster(content, name, frame=frame, max_pixels=10_000).pixels


@pytest.mark.parametrize(
    ("pixels", "format_name", "options"),
    [
        (GREY, "PNG", {}),
        (COLOUR, "PNG", {}),
        (DEEP, "PNG", {}),
        (GREY, "TIFF", {}),
        (COLOUR, "TIFF", {"compression": "tiff_lzw"}),
        (DEEP, "TIFF", {}),
        (DEEP.astype(np.float32) / 7, "TIFF", {}),
        (DEEP.astype(np.int32) - 9, "TIFF", {}),
        (GREY, "BMP", {}),
        (COLOUR, "BMP", {}),
        (GREY, "GIF", {}),
        (COLOUR, "WEBP", {"lossless": True}),
        (GREY, "PPM", {}),
        (COLOUR, "PPM", {}),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_lossless_picture_gives_its_pixels_back(pixels, format_name, options):
    result = stored(picture_bytes(pixels, format_name, **options))
    assert result.dtype == pixels.dtype
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_jpeg_decodes_as_pillow_does(pixels):
    content = picture_bytes(pixels, "JPEG", quality=95)
    result = stored(content)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(result, np.asarray(image))


def test_big_endian_16_bit_tiff_is_stored_little_endian():
    image = Image.frombytes("I;16B", (12, 12), DEEP.astype(">u2").tobytes())
    result = stored(picture_bytes(image, "TIFF"))
    assert result.dtype == np.dtype("<u2")
    np.testing.assert_array_equal(result, DEEP)


def test_one_bit_picture_is_black_and_white():
    bits = RNG.integers(0, 2, (12, 12)).astype(bool)
    np.testing.assert_array_equal(stored(picture_bytes(bits)), bits * 255)


def test_rgb_with_equal_channels_has_the_digest_of_its_grey_twin(tmp_path):
    grey = decoded(picture_bytes(GREY), tmp_path)
    colour = decoded(picture_bytes(np.repeat(GREY[..., None], 3, axis=-1)), tmp_path)
    assert grey.content_sha256 == colour.content_sha256
    np.testing.assert_array_equal(grey.pixels, colour.pixels)


def test_palette_becomes_its_colours():
    image = Image.fromarray(COLOUR).quantize(16)
    np.testing.assert_array_equal(stored(picture_bytes(image)), np.asarray(image.convert("RGB")))


def test_transparent_parts_are_black():
    alpha = np.zeros((12, 12, 1), np.uint8)
    alpha[:6] = 255
    alpha[6, :] = 128
    result = stored(picture_bytes(np.concatenate([COLOUR, alpha], axis=-1)))
    np.testing.assert_array_equal(result[:6], COLOUR[:6])
    assert (result[7:] == 0).all()
    np.testing.assert_allclose(result[6], COLOUR[6] * (128 / 255), atol=0.51)


def test_grey_with_alpha_stays_grey():
    pixels = np.stack([GREY, np.full_like(GREY, 255)], axis=-1)
    np.testing.assert_array_equal(stored(picture_bytes(pixels)), GREY)


def test_palette_with_transparency_is_laid_over_black():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.putdata([0, 1])
    result = stored(picture_bytes(image, transparency=0))
    assert result.tolist() == [[[0, 0, 0], [10, 200, 10]]]


def test_cmyk_jpeg_becomes_rgb():
    image = Image.fromarray(COLOUR).convert("CMYK")
    content = picture_bytes(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as opened:
        np.testing.assert_array_equal(stored(content), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF"])
def test_exif_rotation_is_applied(orientation, format_name):
    # A bright corner that every orientation puts elsewhere; 16 x 8 so that a missed transposition shows.
    upright = np.zeros((16, 8), np.uint8)
    upright[:4, :4] = 255
    turn = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: np.transpose, 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if format_name == "JPEG" else {}
    result = stored(picture_bytes(np.ascontiguousarray(turn(upright)), format_name, exif=exif, **options))
    assert result.shape == upright.shape
    assert np.abs(result.astype(int) - upright).max() < 30


def test_pages_of_a_tiff_are_frames():
    content = picture_bytes(
        Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(255 - GREY)]
    )
    np.testing.assert_array_equal(stored(content, frame=1), 255 - GREY)
    with pytest.raises(ImageRefused, match="frame 2") as refusal:
        stored(content, frame=2)
    assert refusal.value.reason is Reason.NO_PIXELS


@pytest.mark.parametrize("pixels", [GREY, COLOUR, DEEP], ids=["grey", "colour", "deep"])
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF", "WEBP", "PPM"])
def test_picture_truncated_at_any_byte_is_refused(tmp_path, pixels, format_name):
    if pixels is DEEP and format_name in {"JPEG", "WEBP"}:
        pytest.skip(f"{format_name} has no 16-bit grey")
    content = picture_bytes(pixels, format_name)
    for length in range(1, len(content), max(1, len(content) // 120)):
        with pytest.raises(ImageRefused) as refusal:
            decoded(content[:length], tmp_path)
        assert refusal.value.reason in {Reason.UNREADABLE, Reason.NO_PIXELS}


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (20_000, 20_000)])
def test_png_bomb_is_refused_by_its_header(tmp_path, size):
    assert_refused(png_with_size(*size), tmp_path, Reason.TOO_LARGE, match="its header says")


def test_jpeg_and_other_bombs_are_refused_by_their_headers(tmp_path):
    jpeg = bytearray(picture_bytes(GREY, "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = b"\xea\x60\xea\x60"
    assert_refused(bytes(jpeg), tmp_path, Reason.TOO_LARGE)
    assert_refused(b"P5 60000 60000 255\n" + bytes(99), tmp_path, Reason.TOO_LARGE)


def test_png_that_inflates_beyond_its_size_is_no_bomb(tmp_path):
    # 1 x 1 pixel whose data inflate to 200 MB: neither Pillow nor the count of its bytes goes that far.
    small = png_with_size(1, 1)
    bomb = zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(bomb)) + b"IDAT" + bomb + struct.pack(">I", zlib.crc32(b"IDAT" + bomb))
    start = small.index(b"IDAT") - 4
    bomb = small[:start] + chunk + small[-12:]
    assert_refused(bomb, tmp_path, Reason.UNREADABLE, match="the compressed samples have no end")


def test_text_bomb_in_a_png_is_refused(tmp_path):
    png = picture_bytes(GREY)
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    assert_refused(png[:33] + chunk + png[33:], tmp_path, Reason.UNREADABLE)


def test_wrong_checksum_is_refused(tmp_path):
    png = bytearray(picture_bytes(GREY))
    png[png.index(b"IDAT") + 20] ^= 1
    assert_refused(bytes(png), tmp_path, Reason.UNREADABLE)


def test_picture_of_no_area_is_refused(tmp_path):
    with pytest.raises(ImageRefused) as refusal:
        decoded(png_with_size(0, 10), tmp_path)
    assert refusal.value.reason in {Reason.NO_PIXELS, Reason.UNREADABLE}


@pytest.mark.parametrize("value", [0, 77, 255])
def test_one_pixel_is_an_image(tmp_path, value):
    result = decoded(picture_bytes(np.full((1, 1), value, np.uint8)), tmp_path)
    assert result.pixels.shape == (448, 448)
    assert (result.pixels == value).all()


def test_constant_8_bit_picture_keeps_its_grey_and_16_bit_is_black(tmp_path):
    assert (decoded(picture_bytes(np.full((9, 9), 77, np.uint8)), tmp_path).pixels == 77).all()
    assert (decoded(picture_bytes(np.full((9, 9), 777, np.uint16)), tmp_path).pixels == 0).all()


def test_16_bit_picture_is_stretched_over_its_range(tmp_path):
    pixels = np.array([[1000, 1400], [2000, 1000]], np.uint16)
    result = decoded(picture_bytes(pixels), tmp_path, spec=same_size(pixels))
    assert result.pixels.tolist() == [[0, 102], [255, 0]]


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"\0" * 200,
        b"hello, world",
        b"%PDF-1.7 " + bytes(200),
        b"RIFF\0\0\0\0WAVE" + bytes(99),
        b"P9 1 1 1",
    ],
    ids=["byte", "zeros", "text", "pdf", "wave", "pnm"],
)
def test_what_is_no_image_is_unreadable(tmp_path, content):
    assert_refused(content, tmp_path, Reason.UNREADABLE, match="begins with")


def test_magic_of_another_format_is_unreadable(tmp_path):
    png = picture_bytes(GREY)
    assert_refused(b"\xff\xd8\xff\xe0" + png[4:], tmp_path, Reason.UNREADABLE, match="JPEG")


def test_empty_file_has_no_pixels(tmp_path):
    assert_refused(b"", tmp_path, Reason.NO_PIXELS, match="empty")


def test_float_picture_with_nan_is_not_finite(tmp_path):
    pixels = np.ones((4, 4), np.float32)
    pixels[1, 1] = np.nan
    assert_refused(picture_bytes(pixels, "TIFF"), tmp_path, Reason.NON_FINITE)
