"""Pages and frames are counted from the structure of a file, as libraries that decode it count them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from embedstore.images.file_kind import picture_format
from embedstore.pictures.picture_pages import picture_pages

GREY = np.random.default_rng(1).integers(0, 255, (20, 16)).astype(np.uint8)


def pages_of(content):
    return picture_pages(io.BytesIO(content), picture_format(content[:16]))


def saved(count, format_name, **options):
    frames = [Image.fromarray(np.roll(GREY, frame)) for frame in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format_name, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def by_tifffile(write, **options):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, **options) as tiff:
        write(tiff)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("format_name", ["TIFF", "GIF", "WEBP"])
def test_frames_are_those_that_pillow_counts(format_name, count):
    content = saved(count, format_name)
    with Image.open(io.BytesIO(content)) as image:
        assert len(pages_of(content)) == image.n_frames == count


@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}], ids=str
)
def test_pages_of_every_kind_of_tiff_are_counted(options):
    def write(tiff):
        for page in range(4):
            tiff.write(np.roll(GREY, page), photometric="minisblack")

    assert pages_of(by_tifffile(write, **options)) == (0, 1, 2, 3)


def test_thumbnails_levels_of_a_pyramid_and_masks_are_no_pages():
    def write(tiff):
        tiff.write(GREY[::4, ::4], subfiletype=1, metadata=None)
        tiff.write(GREY, metadata=None)
        tiff.write(GREY[::2, ::2], subfiletype=1, metadata=None)
        tiff.write(GREY > 99, subfiletype=4, photometric="mask", metadata=None)
        tiff.write(GREY, subfiletype=2, metadata=None)  # a page of a document of several

    assert pages_of(by_tifffile(write)) == (1, 4)


def test_other_pictures_have_one_page():
    for format_name in ("PNG", "JPEG", "BMP", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(GREY).save(buffer, format_name)
        assert pages_of(buffer.getvalue()) == (0,)
    assert pages_of(saved(3, "PNG")) == (0,)  # an animation is an extension of PNG


@pytest.mark.parametrize("format_name", ["TIFF", "GIF", "WEBP"])
def test_a_file_cut_anywhere_or_with_flipped_bytes_is_counted_without_error(format_name):
    content = saved(3, format_name)
    for length in range(16, len(content), max(1, len(content) // 80)):
        assert len(pages_of(content[:length])) >= 1
    rng = np.random.default_rng(0)
    for _ in range(300):
        mutated = bytearray(content)
        for place in rng.integers(8, len(content), 5):
            mutated[place] = rng.integers(256)
        assert len(pages_of(bytes(mutated))) >= 1


def test_a_chain_of_directories_that_closes_is_left():
    content = bytearray(saved(2, "TIFF"))
    first = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[first : first + 2], "little")
    content[first + 2 + 12 * count : first + 6 + 12 * count] = first.to_bytes(4, "little")
    assert pages_of(bytes(content)) == (0,)
