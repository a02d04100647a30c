"""A picture counts only when every sample is there: what Pillow fills up with black or grey is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from embedstore.errors import Reason
from embedstore.images.raster import read_raster
from tests.image_files import assert_refused, decoded, encoded_bytes, picture_bytes

RNG = np.random.default_rng(4)
GREY = np.clip(np.add.outer(np.arange(64) * 2, np.arange(80)) + RNG.integers(1, 20, (64, 80)), 1, 255).astype(
    np.uint8
)
COLOUR = np.stack([GREY, GREY[::-1], GREY], -1)
BLACK_BELOW = np.where(np.arange(64)[:, None] < 60, GREY, 0).astype(np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    packed: bytes, width: int, height: int, *, bits: int = 8, colour: int = 0, interlaced: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def lines(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + line.tobytes() for line in pixels)


@pytest.mark.parametrize("rows", [0, 1, 32, 63])
@pytest.mark.parametrize("kind", ["grey", "colour", "16 bits", "palette"])
def test_png_that_ends_before_its_last_row_is_refused(tmp_path, rows, kind):
    pixels = {
        "grey": GREY, "palette": GREY % 2, "16 bits": (GREY.astype(np.uint16) * 99).astype(">u2"), "colour": COLOUR,
    }[kind]  # fmt: skip
    bits, colour = {"grey": (8, 0), "palette": (8, 3), "16 bits": (16, 0), "colour": (8, 2)}[kind]
    whole = png(zlib.compress(lines(pixels)), 80, 64, bits=bits, colour=colour)
    short = png(zlib.compress(lines(pixels[:rows])), 80, 64, bits=bits, colour=colour)
    if kind == "palette":
        palette = chunk(b"PLTE", bytes(range(6)))
        whole, short = (content[:33] + palette + content[33:] for content in (whole, short))
    decoded(whole, tmp_path)
    assert_refused(short, tmp_path, Reason.UNREADABLE)


def test_png_whose_last_rows_are_black_is_whole(tmp_path):
    content = picture_bytes(BLACK_BELOW)
    np.testing.assert_array_equal(read_raster(content, "PNG", frame=0, max_pixels=10**6).pixels, BLACK_BELOW)
    short = png(zlib.compress(lines(BLACK_BELOW[:60])), 80, 64)
    assert_refused(
        short, tmp_path, Reason.UNREADABLE, match="5,184 bytes of samples must be there; found 4,860"
    )


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (9, 17), (80, 64)])
def test_interlaced_png_is_counted_by_its_passes(tmp_path, size):
    width, height = size
    starts = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    pixels = GREY[:height, :width]
    passes = [pixels[top::down, left::across] for left, top, across, down in starts]
    data = b"".join(lines(piece) for piece in passes if piece.size)
    whole = png(zlib.compress(data), width, height, interlaced=1)
    np.testing.assert_array_equal(read_raster(whole, "PNG", frame=0, max_pixels=10**6).pixels, pixels)
    assert_refused(png(zlib.compress(data[:-1]), width, height, interlaced=1), tmp_path, Reason.UNREADABLE)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["grey", "colour", "CMYK"])
def test_jpeg_that_lost_its_second_half_is_refused_as_a_file(tmp_path, mode, progressive):
    image = Image.fromarray(GREY if mode == "grey" else COLOUR)
    whole = picture_bytes(image.convert("CMYK") if mode == "CMYK" else image, "JPEG", progressive=progressive)
    decoded(whole, tmp_path)
    cut = whole[: (len(whole) + whole.rindex(b"\xff\xda")) // 2] + b"\xff\xd9"
    assert_refused(cut, tmp_path, Reason.UNREADABLE)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_jpeg_that_lost_its_second_half_is_refused_inside_dicom(tmp_path, syntax):
    whole = picture_bytes(GREY, "JPEG", quality=90)
    decoded(encoded_bytes(GREY, syntax, whole), tmp_path)
    cut = whole[: len(whole) // 2] + b"\xff\xd9"
    assert_refused(
        encoded_bytes(GREY, syntax, cut), tmp_path, Reason.UNREADABLE, match="JPEG data are truncated"
    )


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("rows_per_strip", [16, 64])
def test_tiff_strip_that_is_damaged_or_missing_is_refused(tmp_path, compression, rows_per_strip):
    tags = {278: rows_per_strip}
    whole = picture_bytes(GREY, "TIFF", compression=compression, tiffinfo=tags)
    decoded(whole, tmp_path)
    with Image.open(io.BytesIO(whole)) as picture:
        start, count = picture.tag_v2[273][-1], picture.tag_v2[279][-1]
    half = start + count // 2
    zeroed = whole[:half] + bytes(start + count - half) + whole[start + count :]
    assert_refused(zeroed, tmp_path, Reason.UNREADABLE)


def test_tiff_that_names_too_few_strips_is_refused(tmp_path):
    whole = picture_bytes(GREY, "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: 16})
    entry = (
        whole.index(struct.pack("<HHI", 257, 4, 1))
        if struct.pack("<HHI", 257, 4, 1) in whole
        else whole.index(struct.pack("<HHI", 257, 3, 1))
    )
    taller = whole[: entry + 8] + struct.pack("<I", 640) + whole[entry + 12 :]
    assert_refused(taller, tmp_path, Reason.UNREADABLE)


@pytest.mark.parametrize("name", ["GIF", "BMP", "PPM", "WEBP"])
def test_other_pictures_cut_anywhere_are_refused(tmp_path, name):
    whole = picture_bytes(GREY, name)
    for end in range(40, len(whole) - 2, len(whole) // 12):
        assert_refused(whole[:end], tmp_path, Reason.UNREADABLE)


def test_gif_without_half_of_its_blocks_is_refused(tmp_path):
    whole = picture_bytes(GREY, "GIF")
    start = whole.index(b",") + 11  # image descriptor and code size
    place, blocks = start, []
    while whole[place]:
        blocks.append(whole[place : place + whole[place] + 1])
        place += whole[place] + 1
    assert b"".join([whole[:start], *blocks, whole[place:]]) == whole
    half = b"".join([whole[:start], *blocks[: len(blocks) // 2], whole[place:]])
    assert_refused(half, tmp_path, Reason.UNREADABLE)
