"""A stored value is the BitsStored bits that end at HighBit, in native words and in every codestream."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from embedstore.errors import ImageRefused, Note, Reason
from embedstore.values.stored_bits import StoredBits, stored_values
from tests.dcmtk import needs_dcmtk, shown
from tests.image_files import LOSSLESS_SYNTAXES, assert_refused, dataset, decoded, dicom_bytes, same_size

ROWS, COLUMNS = np.mgrid[0:64, 0:64]
RAMP = (ROWS * 30 + COLUMNS * 25).astype(np.uint16)  # 0 ... 3465, 12 bits


def in_words(values, bits, high, rest=0):
    """Put values into the upper bits of 16-bit words, `rest` around them."""
    mask = ((1 << bits) - 1) << (high + 1 - bits)
    shifted = (values.astype(np.int64) << (high + 1 - bits)) & mask
    return (shifted | (rest & ~mask & 0xFFFF)).astype(np.uint16)


@pytest.mark.parametrize(
    ("stored", "high"), [(12, 11), (12, 15), (12, 13), (8, 15), (10, 9), (1, 15), (16, 15)]
)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rest", [0, 0xFFFF, 0x8001])
def test_every_value_of_every_depth_comes_back_from_its_place(stored, high, signed, rest):
    low = -(1 << (stored - 1)) if signed else 0
    values = np.arange(low, low + (1 << stored))
    words = in_words(values, stored, high, rest)
    words = words.view(np.int16) if signed else words
    found, _ = stored_values(words, StoredBits(16, stored, high, signed))
    assert found.dtype == words.dtype
    np.testing.assert_array_equal(found, values)


def test_what_was_around_the_values_is_said():
    bits = StoredBits(16, 12, 11, signed=True)
    minus = np.array([-3, 5], np.int16)
    values, notes = stored_values(minus, bits)
    assert (values.tolist(), notes) == ([-3, 5], frozenset())
    # The same two values with zeros above them: a writer's choice, and no other content.
    zeros = minus & np.int16(0x0FFF)
    values, notes = stored_values(zeros, bits)
    assert (values.tolist(), notes) == ([-3, 5], frozenset())
    overlay = zeros.view(np.uint16) | np.uint16(0x4000)
    values, notes = stored_values(overlay.view(np.int16), bits)
    assert (values.tolist(), notes) == ([-3, 5], {Note.BITS_OUTSIDE})
    assert stored_values(np.array([0x50], np.uint16), StoredBits(16, 12, 15, False))[1] == {Note.HIGH_BIT}


def test_a_stream_of_few_bits_holds_values_alone_and_its_own_sign():
    # 12 bits unsigned, as a codec without signs returns -3 and 5: 4093 and 5. HighBit 15 says nothing of a stream.
    stream = np.array([4093, 5], np.uint16)
    for high in (11, 15):
        values, notes = stored_values(stream, StoredBits(16, 12, high, signed=True), precision=12)
        assert (values.tolist(), notes) == ([-3, 5], frozenset())
    # Of 10 bits while BitsStored says 12: the sign is the highest of the ten.
    values, _ = stored_values(
        np.array([1021, 5], np.uint16), StoredBits(16, 12, 11, signed=True), precision=10
    )
    assert values.tolist() == [-3, 5]


def test_lossy_values_that_overshoot_are_the_nearest_ones_and_more_is_refused():
    bits = StoredBits(16, 12, 11, signed=False)
    values, notes = stored_values(np.array([0, 4095, 4200], np.uint16), bits, precision=16, lossy=True)
    assert (values.tolist(), notes) == ([0, 4095, 4095], frozenset())
    with pytest.raises(ImageRefused, match="between 0 and 4095") as refusal:
        stored_values(np.array([0, 9000], np.uint16), bits, precision=16, lossy=True)
    assert refusal.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("allocated", "stored", "high"), [(16, 12, 10), (16, 12, 16), (8, 12, 11), (16, 0, 0)]
)
def test_bits_that_lie_in_no_word_are_refused(allocated, stored, high):
    with pytest.raises(ImageRefused, match="HighBit"):
        StoredBits(allocated, stored, high, signed=False)


@pytest.mark.parametrize(
    "name", ["implicit", "explicit", "big-endian", "deflated", "rle", "jpeg-2000", "jpeg-ls"]
)
@pytest.mark.parametrize(
    ("stored", "high", "rest"), [(12, 11, 0), (12, 15, 0), (12, 11, 0x8000), (12, 13, 0x8001)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_one_picture_has_one_digest_wherever_its_bits_lie(tmp_path, name, stored, high, rest, signed):
    values = RAMP.astype(np.int64) - 1700 if signed else RAMP.astype(np.int64)
    plain = values.astype(np.int16 if signed else np.uint16)
    expected = decoded(dicom_bytes(dataset(plain, bits_stored=16)), tmp_path, spec=same_size(plain))
    words = in_words(values, stored, high, rest)
    # Written and compressed as words of 16 bits, then described: no encoder has to know of HighBit.
    content = dicom_bytes(dataset(words.view(plain.dtype)), LOSSLESS_SYNTAXES[name])
    result = decoded(described(content, stored, high), tmp_path, spec=same_size(plain))
    assert result.content_sha256 == expected.content_sha256
    np.testing.assert_array_equal(result.pixels, expected.pixels)
    assert (Note.HIGH_BIT in result.notes) == (high != 11)


def described(content, stored, high):
    """Write other numbers into BitsStored and HighBit, in any syntax."""
    ds = dcmread(BytesIO(content))
    ds.BitsStored, ds.HighBit = stored, high
    buffer = BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


@needs_dcmtk
@pytest.mark.parametrize(
    ("stored", "high", "rest"), [(12, 15, 0), (8, 15, 0), (12, 11, 0x8000), (10, 12, 0xE001)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_bits_are_taken_where_dcmtk_takes_them(tmp_path, stored, high, rest, signed):
    values = (RAMP.astype(np.int64) >> (12 - stored)) - (signed << (stored - 1))
    words = in_words(values, stored, high, rest)
    ds = dataset(words.view(np.int16) if signed else words, bits_stored=stored, HighBit=high)
    ours = decoded(dicom_bytes(ds), tmp_path, spec=same_size(words)).pixels
    assert np.abs(shown(dicom_bytes(ds), tmp_path, "+Wm").astype(int) - ours).max() <= 1


def test_impossible_bits_of_a_file_are_refused(tmp_path):
    assert_refused(
        dicom_bytes(dataset(RAMP, bits_stored=12, HighBit=3)), tmp_path, Reason.UNREADABLE, "HighBit"
    )


def test_colour_loses_the_bits_that_are_no_values_too(tmp_path):
    colour = np.stack([RAMP, RAMP // 2, RAMP // 3], axis=-1)
    plain = decoded(dicom_bytes(dataset(colour, bits_stored=12)), tmp_path)
    marked = decoded(dicom_bytes(dataset(colour | np.uint16(0x8000), bits_stored=12)), tmp_path)
    assert marked.content_sha256 == plain.content_sha256
    assert marked.notes == {Note.BITS_OUTSIDE}
