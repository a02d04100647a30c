"""JPEG decodes to what was encoded, by every process of DICOM, and is refused where samples are lacking."""

from __future__ import annotations

import io
import struct
from contextlib import nullcontext, suppress

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from embedstore.codecs.frame_size import FrameSize
from embedstore.codecs.jpeg import _check_progression, check_jpeg, decode_jpeg
from embedstore.codecs.jpeg_stream import read_jpeg, restart_places
from embedstore.errors import ImageRefused, Reason
from tests.image_files import jpeg_lossless

RNG = np.random.default_rng(3)
SMOOTH = np.add.outer(np.arange(61) * 40, np.arange(75) * 17) + RNG.integers(0, 90, (61, 75))
DEEP = np.clip(SMOOTH, 0, 4095).astype(np.uint16)
GREY = (DEEP >> 4).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def pillow_jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


LOSSY = {
    "8 bits": pillow_jpeg(GREY, quality=90),
    "8 bits, restarts": pillow_jpeg(GREY, quality=90, restart_marker_blocks=3),
    "8 bits, optimised": pillow_jpeg(GREY, quality=75, optimize=True),
    "12 bits": imagecodecs.jpeg8_encode(DEEP, 90, bitspersample=12),
    "colour 4:4:4": pillow_jpeg(COLOUR, quality=90, subsampling=0),
    "colour 4:2:2": pillow_jpeg(COLOUR, quality=90, subsampling=1),
    "colour 4:2:0": pillow_jpeg(COLOUR, quality=90, subsampling=2),
    "progressive": pillow_jpeg(GREY, quality=90, progressive=True),
}
LOSSLESS = {
    "12 bits": jpeg_lossless(DEEP, 12),
    "16 bits, predictor 7": jpeg_lossless(DEEP * 9, 16, predictor=7),
    "8 bits": jpeg_lossless(GREY, 8),
    "restarts": jpeg_lossless(DEEP, 12, restart_rows=10),
    "by libjpeg": imagecodecs.jpeg8_encode(DEEP, lossless=True, predictor=1, bitspersample=12),
    "flat": imagecodecs.jpeg8_encode(np.where(DEEP > 3400, DEEP, 2048), lossless=True, bitspersample=12),
    "black": imagecodecs.jpeg8_encode(np.zeros_like(GREY), lossless=True),
}
STREAMS = {f"lossy, {name}": stream for name, stream in LOSSY.items()} | {
    f"lossless, {name}": stream for name, stream in LOSSLESS.items()
}


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("transform", [0, 1, 4])
@pytest.mark.parametrize("restart_rows", [0, 1, 7])
def test_lossless_jpeg_is_exact_for_every_predictor_point_transform_and_restart(
    predictor, transform, restart_rows
):
    stream = jpeg_lossless(
        DEEP, 12, predictor=predictor, point_transform=transform, restart_rows=restart_rows
    )
    np.testing.assert_array_equal(decode_jpeg(stream), DEEP >> transform << transform)


@pytest.mark.parametrize("precision", range(2, 17))
def test_lossless_jpeg_is_exact_for_every_precision(precision):
    pixels = RNG.integers(0, 1 << precision, (33, 40)).astype(np.uint16)
    found = decode_jpeg(jpeg_lossless(pixels, precision, predictor=4))
    assert found.dtype == (np.uint8 if precision <= 8 else np.uint16)
    np.testing.assert_array_equal(found, pixels)


def test_differences_modulo_256_are_those_of_ultrasound_makers():
    pixels = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    np.testing.assert_array_equal(decode_jpeg(jpeg_lossless(pixels, 8, modulo=256)), pixels)


def test_lossless_colour_is_not_taken_for_ycbcr():
    np.testing.assert_array_equal(decode_jpeg(jpeg_lossless(COLOUR, 8, predictor=6)), COLOUR)


@pytest.mark.parametrize("name", ["8 bits", "8 bits, restarts", "8 bits, optimised", "progressive"])
def test_grey_jpeg_has_the_pixels_of_pillow(name):
    np.testing.assert_array_equal(decode_jpeg(LOSSY[name]), np.asarray(Image.open(io.BytesIO(LOSSY[name]))))


@pytest.mark.parametrize("name", ["colour 4:4:4", "colour 4:2:2", "colour 4:2:0"])
def test_colour_jpeg_has_the_components_of_pillow(name):
    picture = Image.open(io.BytesIO(LOSSY[name]))
    picture.draft("YCbCr", picture.size)
    np.testing.assert_array_equal(decode_jpeg(LOSSY[name]), np.asarray(picture))


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 17, 63])
@pytest.mark.parametrize("columns", [1, 8, 9, 33])
def test_small_images_of_every_remainder_are_whole(rows, columns):
    grey = RNG.integers(0, 256, (rows, columns), dtype=np.uint8)
    deep = RNG.integers(0, 4096, (rows, columns), dtype=np.uint16)
    colour = RNG.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    for subsampling in (0, 1, 2):
        decode_jpeg(pillow_jpeg(colour, subsampling=subsampling))
        check_jpeg(pillow_jpeg(colour, subsampling=subsampling), rows=rows, columns=columns)
    for quality in (5, 50, 95):
        decode_jpeg(pillow_jpeg(grey, quality=quality))
        decode_jpeg(imagecodecs.jpeg8_encode(deep, quality, bitspersample=12))
    np.testing.assert_array_equal(decode_jpeg(jpeg_lossless(deep, 12)), deep)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 129, 255])
def test_a_flat_image_is_whole_whatever_its_grey(value):
    # 128 is the grey that libjpeg puts in place of what is missing.
    flat = np.full((40, 48), value, np.uint8)
    np.testing.assert_array_equal(decode_jpeg(pillow_jpeg(flat, quality=95)), flat)
    np.testing.assert_array_equal(decode_jpeg(imagecodecs.jpeg8_encode(flat, lossless=True)), flat)
    np.testing.assert_array_equal(decode_jpeg(jpeg_lossless(flat, 8)), flat)


@pytest.mark.parametrize("name", STREAMS)
def test_jpeg_cut_anywhere_and_closed_with_an_end_marker_is_refused(name):
    whole = STREAMS[name]
    scan = read_jpeg(whole).scans[0]
    steps = range(scan.start, scan.end, max(1, (scan.end - scan.start) // 40))
    for end in [*steps, *range(max(scan.end - 6, scan.start), scan.end)]:
        if scan.end - end < 8:
            # Bits that are gone may have been zeros, which is what libjpeg takes them for: nothing is lost then.
            with suppress(ImageRefused):
                np.testing.assert_array_equal(decode_jpeg(whole[:end] + b"\xff\xd9"), decode_jpeg(whole))
            continue
        with pytest.raises(ImageRefused, match="JPEG") as refusal:
            decode_jpeg(whole[:end] + b"\xff\xd9")
        assert refusal.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize("name", [name for name in STREAMS if "black" not in name and "flat" not in name])
def test_jpeg_that_lost_its_middle_is_refused(name):
    whole = STREAMS[name]
    scan = read_jpeg(whole).scans[0]
    start = (scan.start + scan.end) // 2
    for length in (64, 100, 200):
        with pytest.raises(ImageRefused, match="JPEG"):
            decode_jpeg(whole[:start] + whole[min(start + length, scan.end - 1) :])


@pytest.mark.parametrize(
    "name", ["lossy, 8 bits", "lossy, 12 bits", "lossy, colour 4:2:2", "lossless, by libjpeg"]
)
@pytest.mark.parametrize("start", [0.2, 0.5, 0.8])
def test_jpeg_whose_middle_is_zeros_is_refused(name, start):
    whole = STREAMS[name]
    scan = read_jpeg(whole).scans[0]
    place = int(scan.start + start * (scan.end - scan.start))
    length = min(512, (scan.end - place) // 2)
    with pytest.raises(ImageRefused, match="JPEG"):
        decode_jpeg(whole[:place] + bytes(length) + whole[place + length :])


def test_progressive_jpeg_without_its_last_scans_is_refused():
    whole = LOSSY["progressive"]
    for scan in read_jpeg(whole).scans[:-1]:
        with pytest.raises(ImageRefused, match="a scan of component 1 is missing"):
            decode_jpeg(whole[: scan.end] + b"\xff\xd9")


LARGE = np.add.outer(np.arange(256) * 7, np.arange(256) * 3) + RNG.integers(0, 40, (256, 256))
SCANS = {
    "progressive": pillow_jpeg((LARGE % 256).astype(np.uint8), quality=90, progressive=True),
    "progressive colour": pillow_jpeg(
        np.stack([LARGE, LARGE[::-1], LARGE.T], -1).astype(np.uint8), quality=90, progressive=True
    ),
}


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_progressive_jpeg_that_lost_half_of_a_scan_is_refused(name, place):
    # Scans that refine find back to their place now and then, with nothing lacking at the end (docs/data.md).
    whole = SCANS[name]
    for scan in [scan for scan in read_jpeg(whole).scans if not scan.high_bit]:
        length = (scan.end - scan.start) // 2
        start = scan.start + int(place * length)
        with pytest.raises(ImageRefused, match=r"premature end|extraneous|bad Huffman"):
            decode_jpeg(whole[:start] + whole[start + length :])


@pytest.mark.parametrize("name", SCANS)
def test_progressive_jpeg_with_more_data_than_a_scan_takes_is_refused(name):
    whole = SCANS[name]
    for scan in read_jpeg(whole).scans:
        more = whole[scan.start : scan.start + 64].replace(b"\xff", b"\xfe")
        with pytest.raises(ImageRefused, match=r"\d\d extraneous bytes"):
            decode_jpeg(whole[: scan.end] + more + whole[scan.end :])


def test_sequential_jpeg_of_several_scans_is_whole_or_refused():
    grey = pillow_jpeg(GREY, quality=90)
    colour = _one_scan_a_component(grey, components=3)
    np.testing.assert_array_equal(decode_jpeg(colour)[..., 2], decode_jpeg(grey))
    scan = read_jpeg(colour).scans[1]
    for start in (scan.start + 100, scan.end - 100):
        with pytest.raises(ImageRefused, match=r"premature end|extraneous|bad Huffman"):
            check_jpeg(colour[:start] + colour[start + 64 :], rows=61, columns=75)


def _one_scan_a_component(grey, *, components):
    """Return a JPEG that codes the data of a grey one for each component, in a scan of its own (T.81 B.2.2, B.2.3)."""
    scan = read_jpeg(grey).scans[0]
    frame = grey.index(b"\xff\xc0")
    size = grey[frame + 4 : frame + 9]
    header = b"\xff\xc0" + struct.pack(">H", 8 + 3 * components) + size + bytes([components])
    header += b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    rest = grey[frame + 2 + int.from_bytes(grey[frame + 2 : frame + 4], "big") : scan.start - 10]
    scans = [
        b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, number, 0, 0, 63, 0) + grey[scan.start : scan.end]
        for number in range(1, components + 1)
    ]
    return grey[:frame] + header + rest + b"".join(scans) + b"\xff\xd9"


def test_missing_restart_marker_is_refused():
    whole = LOSSY["8 bits, restarts"]
    place = restart_places(whole, read_jpeg(whole).scans[0])[2]
    with pytest.raises(ImageRefused, match="restart markers in order"):
        decode_jpeg(whole[:place] + whole[place + 2 :])


def test_fill_bytes_before_the_end_and_padding_after_it_are_sound():
    whole = LOSSY["8 bits"]
    padded = whole[:-2] + b"\xff\xff\xff" + whole[-2:] + bytes(3)
    np.testing.assert_array_equal(decode_jpeg(padded), decode_jpeg(whole))


def test_marker_segments_are_read():
    stream = read_jpeg(LOSSY["colour 4:2:0"])
    assert stream.size == FrameSize(61, 75, 3, 8)
    assert stream.sampling == ((2, 2), (1, 1), (1, 1))
    assert stream.jfif
    assert stream.adobe_transform is None
    scan = read_jpeg(jpeg_lossless(DEEP, 12, predictor=5, point_transform=3)).scans[0]
    assert (scan.component_ids, scan.first, scan.low_bit) == ((1,), 5, 3)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda\0\0", b"\xff\xd8" + b"\xff" * 99, b"x" * 99]
)
def test_codestream_without_a_frame_header_is_refused(content):
    with pytest.raises(ImageRefused, match="no JPEG header"):
        read_jpeg(content)


@pytest.mark.parametrize(
    ("process", "precision", "match"), [(0xC9, 8, "SOF9"), (0xC5, 8, "SOF5"), (0xC1, 10, "10 bits")]
)
def test_process_without_a_decoder_is_unsupported(process, precision, match):
    whole = bytearray(LOSSY["8 bits"])
    at = read_jpeg(bytes(whole)).rows_at
    whole[at - 4], whole[at - 1] = process, precision
    with pytest.raises(ImageRefused, match=match) as refusal:
        decode_jpeg(bytes(whole))
    assert refusal.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("predictor", [0, 8])
def test_lossless_scan_without_a_predictor_is_refused(predictor):
    whole = jpeg_lossless(DEEP, 12)
    header = struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0)
    broken = whole.replace(header, header[:-3] + bytes([predictor, 0, 0]))
    with pytest.raises(ImageRefused, match="predictor of 1 to 7"):
        decode_jpeg(broken)


@pytest.mark.parametrize("quality", [10, 50, 75, 90, 95])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize(("pixels", "subsampling"), [(GREY, 0), (COLOUR, 0), (COLOUR, 2)])
def test_sound_progressive_files_are_complete(pixels, subsampling, quality, optimize):
    content = pillow_jpeg(
        pixels, progressive=True, quality=quality, optimize=optimize, subsampling=subsampling
    )
    check_jpeg(content, rows=61, columns=75)


# The scans of libjpeg for grey: DC 0/1, AC 1-5 0/2, AC 6-63 0/2, AC 1-63 2/1, DC 1/0, AC 1-63 1/0 (Ah/Al).
@pytest.mark.parametrize("missing", range(6))
def test_a_progressive_file_without_one_of_its_scans_is_refused(missing):
    content = pillow_jpeg(GREY, progressive=True, quality=90)
    scan = read_jpeg(content).scans[missing]
    header = content.rindex(b"\xff\xda", 0, scan.start)
    with pytest.raises(ImageRefused, match=r"does not follow|is missing"):
        check_jpeg(content[:header] + content[scan.end :], rows=61, columns=75)


# Ss, Se, Ah, Al of scans of grey, as cjpeg -scans may write them: bands only, bits of DC one by one, many refinements.
@pytest.mark.parametrize(
    ("scans", "sound"),
    [
        ([(0, 0, 0, 0), (1, 8, 0, 0), (9, 63, 0, 0)], True),
        ([(0, 0, 0, 2), (0, 0, 2, 1), (1, 63, 0, 0), (0, 0, 1, 0)], True),
        ([(0, 0, 0, 0), (1, 8, 0, 3), (9, 63, 0, 3), (1, 63, 3, 2), (1, 63, 2, 1), (1, 63, 1, 0)], True),
        ([(1, 63, 0, 0), (0, 0, 0, 0)], False),
        ([(0, 0, 0, 0), (1, 63, 0, 2), (1, 63, 1, 0)], False),
        ([(0, 0, 0, 0), (1, 63, 0, 2), (1, 63, 2, 0)], False),
        ([(0, 0, 0, 0), (1, 5, 0, 1), (1, 63, 1, 0)], False),
    ],
)
def test_the_scans_of_a_progression_follow_on_each_other(scans, sound):
    content = pillow_jpeg(GREY, progressive=True)
    places = [scan.start for scan in read_jpeg(content).scans]
    start = content.rindex(b"\xff\xda", 0, places[0])
    pieces = [b"\xff\xda\x00\x08\x01\x01\x00" + bytes([a, b, h << 4 | w]) for a, b, h, w in scans]
    stream = read_jpeg(content[:start] + b"\x00".join(pieces) + b"\x00\xff\xd9")
    with nullcontext() if sound else pytest.raises(ImageRefused, match="does not follow"):
        _check_progression(stream)
