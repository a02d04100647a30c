"""One picture gives one digest and one input in every container, at every depth and polarity."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from embedstore.errors import ImageRefused, Reason
from embedstore.images.file_kind import picture_format
from embedstore.pictures.raster import read_raster
from tests.image_files import assert_refused, decoded, picture_bytes, same_size

RNG = np.random.default_rng(5)
DEEP = RNG.integers(0, 4096, (12, 12)).astype(np.uint16)  # 12 bits in 16
SHALLOW = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
DEEP_COLOUR = RNG.integers(0, 4096, (12, 12, 3)).astype(np.uint16)


def stored(content, page=0):
    return read_raster(content, picture_format(content[:16]), frame=page, max_pixels=10_000).pixels


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels, *, extra=b""):
    """Write a PNG by hand: (h, w, samples) of 16 bits, none of which an image library has touched."""
    height, width, samples = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def channels(grey, *, colours=1, alpha=False):
    planes = [grey] * colours + ([np.full_like(grey, np.iinfo(grey.dtype).max)] if alpha else [])
    return np.stack(planes, axis=-1)


def tiff(pixels, *, photometric=1, order="<", bits=None):
    """Write an uncompressed TIFF of one strip by hand, from pixels of the file's own type or packed bytes."""
    height, width = pixels.shape[:2]
    bits = bits or 8 * pixels.itemsize
    data = (
        packed(pixels, bits)
        if bits in (1, 2, 4, 12)
        else pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    )
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, kind),
    ]  # fmt: skip
    directory = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
        for tag, kind, value in entries
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(f"{order}I", 8 + len(data))
    return mark + start + data + struct.pack(f"{order}H", len(entries)) + directory + bytes(4)


def packed(pixels, bits):
    """Return rows of `bits` a sample, the first in the highest bits, each row from a whole byte on."""
    lines = []
    for row in pixels:
        line = "".join(f"{value:0{bits}b}" for value in row.tolist())
        line += "0" * (-len(line) % 8)
        lines.append(int(line, 2).to_bytes(len(line) // 8, "big"))
    return b"".join(lines)


def by_tifffile(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def pnm(pixels, maxval, *, plain=False):
    height, width = pixels.shape[:2]
    kind = (5 if pixels.ndim == 2 else 6) - 3 * plain
    head = f"P{kind}\n# a comment 1 2 3\n{width} {height}\n{maxval}\n".encode()
    if plain:
        return head + " ".join(str(value) for value in pixels.ravel().tolist()).encode() + b"\n"
    return head + pixels.astype(">u2" if maxval > 255 else np.uint8).tobytes()


SAME_DEEP = {
    "png grey": png(channels(DEEP)),
    "png grey alpha": png(channels(DEEP, alpha=True)),
    "png rgb": png(channels(DEEP, colours=3)),
    "png rgba": png(channels(DEEP, colours=3, alpha=True)),
    "tiff": tiff(DEEP),
    "tiff big endian": tiff(DEEP, order=">"),
    "tiff 12 bits": tiff(DEEP, bits=12),
    "tiff white is zero": tiff(65535 - DEEP, photometric=0),
    "tiff white is zero, big endian": tiff(65535 - DEEP, photometric=0, order=">"),
    "tiff white is zero, 12 bits": tiff(4095 - DEEP, photometric=0, bits=12),
    "tiff lzw": by_tifffile(DEEP, compression="lzw"),
    "tiff white is zero, deflate": by_tifffile(65535 - DEEP, photometric="miniswhite", compression="zlib"),
    "tiff predictor": by_tifffile(DEEP, compression="zlib", predictor=True),
    "tiff rgb": by_tifffile(channels(DEEP, colours=3), photometric="rgb"),
    "tiff rgb big endian": by_tifffile(channels(DEEP, colours=3), photometric="rgb", byteorder=">"),
    "tiff rgba": by_tifffile(channels(DEEP, colours=3, alpha=True), photometric="rgb", extrasamples=["unassalpha"]),
    "tiff rgb planes": by_tifffile(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"),
    "tiff grey alpha": by_tifffile(channels(DEEP, alpha=True), photometric="minisblack", extrasamples=["unassalpha"]),
    "tiff tiles": by_tifffile(channels(DEEP, colours=3), photometric="rgb", tile=(16, 16)),
    "bigtiff": by_tifffile(DEEP, bigtiff=True),
    "pgm 4095": pnm(DEEP, 4095),
    "pgm 65535": pnm(DEEP, 65535),
    "pgm plain": pnm(DEEP, 4095, plain=True),
    "ppm": pnm(channels(DEEP, colours=3), 4095),
    "ppm plain": pnm(channels(DEEP, colours=3), 40000, plain=True),
}  # fmt: skip


@pytest.mark.parametrize("container", SAME_DEEP)
def test_a_12_bit_picture_has_one_digest_and_one_input_in_every_16_bit_container(tmp_path, container):
    content = SAME_DEEP[container]
    np.testing.assert_array_equal(stored(content), DEEP)
    first = decoded(SAME_DEEP["png grey"], tmp_path, spec=same_size(DEEP))
    other = decoded(content, tmp_path, spec=same_size(DEEP))
    assert other.content_sha256 == first.content_sha256
    np.testing.assert_array_equal(other.pixels, first.pixels)
    low, high = int(DEEP.min()), int(DEEP.max())
    expected = np.rint((DEEP.astype(float) - low) / (high - low) * 255)
    np.testing.assert_array_equal(other.pixels, expected)


def palette(grey):
    image = Image.fromarray(255 - grey, "L").convert("P")
    image.putdata((255 - grey).ravel().tolist())
    image.putpalette([level for index in range(256) for level in (255 - index,) * 3])
    return image


SAME_SHALLOW = {
    **{name: picture_bytes(SHALLOW, name) for name in ("PNG", "TIFF", "BMP", "GIF", "PPM")},
    "webp": picture_bytes(channels(SHALLOW, colours=3), "WEBP", lossless=True),
    **{
        f"{name} rgb": picture_bytes(channels(SHALLOW, colours=3), name) for name in ("PNG", "TIFF", "BMP", "PPM")
    },
    "png grey alpha": picture_bytes(channels(SHALLOW, alpha=True), "PNG"),
    "png rgba": picture_bytes(channels(SHALLOW, colours=3, alpha=True), "PNG"),
    "tiff grey alpha": picture_bytes(channels(SHALLOW, alpha=True), "TIFF"),
    "png grey palette": picture_bytes(palette(SHALLOW), "PNG"),
    "tiff grey palette": picture_bytes(palette(SHALLOW), "TIFF"),
    "bmp grey palette": picture_bytes(palette(SHALLOW), "BMP"),
    "tiff big endian": tiff(SHALLOW, order=">"),
    "tiff white is zero": tiff(255 - SHALLOW, photometric=0),
    "tiff white is zero, lzw": by_tifffile(255 - SHALLOW, photometric="miniswhite", compression="lzw"),
    "tiff white is zero, packbits": by_tifffile(255 - SHALLOW, photometric="miniswhite", compression="packbits"),
    "pgm plain": pnm(SHALLOW, 255, plain=True),
}  # fmt: skip


@pytest.mark.parametrize("container", SAME_SHALLOW)
def test_an_8_bit_picture_has_one_digest_and_its_own_grey_in_every_container(tmp_path, container):
    result = decoded(SAME_SHALLOW[container], tmp_path, spec=same_size(SHALLOW))
    assert result.content_sha256 == decoded(SAME_SHALLOW["PNG"], tmp_path).content_sha256
    np.testing.assert_array_equal(result.pixels, SHALLOW)


BITS = RNG.integers(0, 2, (12, 12), dtype=np.uint8)
SAME_BITS = {
    "png": picture_bytes(BITS.astype(bool), "PNG"),
    "bmp": picture_bytes(BITS.astype(bool), "BMP"),
    "pbm": picture_bytes(BITS.astype(bool), "PPM"),
    "tiff": tiff(BITS, bits=1),
    "tiff white is zero": tiff(1 - BITS, bits=1, photometric=0),
    "tiff group 4": picture_bytes(BITS.astype(bool), "TIFF", compression="group4"),
    "tiff white is zero, packbits": by_tifffile(
        (1 - BITS).astype(bool), photometric="miniswhite", compression="packbits"
    ),
}  # fmt: skip


@pytest.mark.parametrize("container", SAME_BITS)
def test_a_1_bit_picture_is_black_and_white_in_every_container(container):
    np.testing.assert_array_equal(stored(SAME_BITS[container]), BITS * 255)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_spread_over_8_and_turned_where_white_is_zero(bits):
    white = 2**bits - 1
    values = RNG.integers(0, white + 1, (12, 12)).astype(np.uint8)
    expected = values * (255 // white)
    np.testing.assert_array_equal(stored(tiff(values, bits=bits)), expected)
    np.testing.assert_array_equal(stored(tiff(white - values, bits=bits, photometric=0)), expected)
    np.testing.assert_array_equal(stored(pnm(values, white)), expected)


@pytest.mark.parametrize("kind", ["u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_sample_type_of_a_tiff_keeps_its_values_and_turns_where_white_is_zero(tmp_path, kind, order):
    values = (RNG.integers(-100, 100, (12, 12)) if kind != "u4" else RNG.integers(0, 2**32, (12, 12))).astype(
        kind
    )
    black = stored(tiff(values, order=order))
    assert black.dtype.kind == values.dtype.kind
    np.testing.assert_array_equal(black, values)
    shown = decoded(tiff(values, order=order), tmp_path, spec=same_size(values)).pixels
    turned = decoded(tiff(values, order=order, photometric=0), tmp_path, spec=same_size(values)).pixels
    assert np.abs(255 - shown.astype(int) - turned).max() <= 1  # a half is rounded to even on both sides
    assert {shown.min(), shown.max(), turned.min(), turned.max()} == {0, 255}


def test_deep_colour_is_stretched_over_the_range_of_its_three_channels_together(tmp_path):
    pixels = np.array([[[100, 300, 500], [100, 100, 100]], [[1100, 600, 100], [350, 850, 1100]]], np.uint16)
    # (value - 100) / 1000 * 255, worked out by hand; halves to even.
    expected = [[[0, 51, 102], [0, 0, 0]], [[255, 128, 0], [64, 191, 255]]]
    for content in (png(pixels), by_tifffile(pixels, photometric="rgb"), pnm(pixels, 1100)):
        assert decoded(content, tmp_path, spec=same_size(pixels)).pixels.tolist() == expected


def test_8_bit_colour_is_taken_as_it_is(tmp_path):
    pixels = np.array([[[10, 20, 30], [40, 50, 60]], [[10, 10, 10], [9, 9, 8]]], np.uint8)
    assert decoded(picture_bytes(pixels), tmp_path, spec=same_size(pixels)).pixels.tolist() == pixels.tolist()


def test_deep_transparency_is_laid_over_black():
    grey = np.array([[[40000, 0], [40000, 32768]], [[40000, 65535], [5, 65535]]], np.uint16)
    assert stored(png(grey)).tolist() == [[0, 20000], [40000, 5]]  # 40000 * 32768 / 65535 = 20000.3
    key = chunk(b"tRNS", struct.pack(">H", 40000))
    assert stored(png(grey[..., :1], extra=key)).tolist() == [[0, 0], [0, 5]]
    colour = np.repeat(grey[..., :1], 3, axis=-1)
    key = chunk(b"tRNS", struct.pack(">3H", 40000, 40000, 40000))
    assert stored(png(colour, extra=key)).tolist() == [[0, 0], [0, 5]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_picture_is_turned_like_a_shallow_one(orientation):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = stored(picture_bytes(pixels, "PNG", exif=exif))
    block = exif.tobytes()[6:]
    deep = png(channels(pixels.astype(np.uint16), colours=3), extra=chunk(b"eXIf", block))
    np.testing.assert_array_equal(stored(deep), expected)
    tag = [(274, "H", 1, orientation, True)]
    np.testing.assert_array_equal(stored(by_tifffile(pixels.astype(np.uint16), extratags=tag)), expected)


@pytest.mark.parametrize(
    "container", ["png rgb", "tiff", "tiff lzw", "tiff 12 bits", "pgm 4095", "ppm plain"]
)
def test_a_deep_picture_cut_anywhere_is_refused(tmp_path, container):
    content = SAME_DEEP[container]
    whole = len(content) - (3 if container == "ppm plain" else 0)  # a shorter last number is still one
    for length in range(1, whole, max(1, whole // 60)):
        with pytest.raises(ImageRefused) as refusal:
            decoded(content[:length], tmp_path)
        assert refusal.value.reason in {Reason.UNREADABLE, Reason.NO_PIXELS}


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_deep_picture_with_damaged_data_is_refused(tmp_path, place):
    noise = RNG.integers(0, 65536, (40, 40, 3)).astype(np.uint16)
    for whole in (by_tifffile(noise, photometric="rgb", compression="zlib"), png(noise)):
        content = bytearray(whole)
        start = int(len(content) * place)
        content[start : start + 8] = bytes(8)
        assert_refused(bytes(content), tmp_path, Reason.UNREADABLE)


def test_values_above_maxval_and_colour_without_a_rule_are_refused(tmp_path):
    assert_refused(pnm(DEEP, int(DEEP.max()) - 1), tmp_path, Reason.UNREADABLE, match="values must be 0 to")
    cmyk = by_tifffile(np.zeros((4, 4, 4), np.uint16), photometric="separated")
    assert_refused(cmyk, tmp_path, Reason.UNSUPPORTED, match="grey or unsigned RGB")
    many = by_tifffile(np.zeros((4, 4, 5), np.uint16), photometric="minisblack", planarconfig="contig")
    assert_refused(many, tmp_path, Reason.UNSUPPORTED, match="5 samples")
    huge = b"P5 60000 60000 4095\n" + bytes(99)
    assert_refused(huge, tmp_path, Reason.TOO_LARGE, match="60000 x 60000")


def test_pages_of_a_deep_tiff_are_told_apart():
    pages = np.stack([DEEP, DEEP + 1, DEEP + 2])
    content = by_tifffile(pages, photometric="minisblack")
    for page in range(3):
        np.testing.assert_array_equal(stored(content, page=page), pages[page])
    with pytest.raises(ImageRefused) as refusal:
        stored(content, page=3)
    assert refusal.value.reason is Reason.NO_PIXELS
