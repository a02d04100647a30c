"""Lookup tables keep sign, byte order and packing in every encoding, checked by hand and against dcmtk."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from embedstore.errors import ImageRefused, Note, Reason
from embedstore.values.lookup_tables import lookup_table, palette_colours
from tests.dcmtk import needs_dcmtk, shown
from tests.image_files import assert_refused, dataset, decoded, dicom_bytes, same_size

ROWS, COLUMNS = np.mgrid[0:64, 0:64]
RAMP = (ROWS * 30 + COLUMNS * 25).astype(np.uint16)  # 0 ... 3465
SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "explicit": uid.ExplicitVRLittleEndian,
    "big-endian": uid.ExplicitVRBigEndian,
}
LITTLE = (False, True)


def table(first, entries, *, bits=16, vr="US", data_vr="OW", big=False):
    """Return a LUT item; words in OW are written as the bytes that the file's order wants."""
    item = Dataset()
    if vr == "SS":
        item.add_new(0x00283002, "SS", [len(entries) % 65536, first, bits])
    else:
        item.add_new(0x00283002, "US", [len(entries) % 65536, first & 0xFFFF, bits])
    words = np.asarray(entries).astype(">u2" if big else "<u2")
    item.add_new(0x00283006, data_vr, words.tobytes() if data_vr == "OW" else np.asarray(entries).tolist())
    return item


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize("data_vr", ["OW", "US"])
@pytest.mark.parametrize("vr", ["SS", "US"])
def test_first_value_of_a_voi_table_has_the_sign_of_rescaled_values(tmp_path, name, data_vr, vr):
    # Values -1024 ... 2441 through a table from -1024 on that squares: the picture is known by hand.
    entries = np.minimum(np.arange(4096) ** 2 // 200, 65535)
    syntax = SYNTAXES[name]
    item = table(-1024, entries, vr=vr, data_vr=data_vr, big=not syntax.is_little_endian)
    if syntax.is_implicit_VR and vr == "SS":
        pytest.skip("implicit VR writes the same two bytes for both")
    ds = dataset(RAMP, bits_stored=12, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[item])
    result = decoded(dicom_bytes(ds, syntax), tmp_path, spec=same_size(RAMP))
    right = np.rint(entries[RAMP] / entries[RAMP.max()] * 255)
    np.testing.assert_array_equal(result.pixels, right)
    assert result.notes == ({Note.LUT_SIGN} if vr == "US" and not syntax.is_implicit_VR else frozenset())


@pytest.mark.parametrize(
    ("first", "count", "inputs", "expected"),
    [
        (-1024, 4096, (-1024, 3071), -1024),
        (64512, 4096, (-1024, 3071), -1024),  # the same bits, written as US
        (-1024, 1024, (0, 65535), 64512),  # unsigned input: the bits are a large number
        (40000, 4096, (-1024, 64511), 40000),  # read as -25,536 the table would meet no value at all
        (-1024, 4096, (0, 4095), -1024),  # and 64,512 would meet none here
        (7, 10, (-5, 5), 7),
    ],
)
def test_sign_of_a_first_value_is_that_of_the_input(first, count, inputs, expected):
    item = table(first, np.arange(count), vr="SS" if first < 0 else "US")
    found, notes = lookup_table(item, encoding=LITTLE, inputs=inputs)
    assert found.first == expected
    assert notes == ({Note.LUT_SIGN} if expected != first else frozenset())


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("packed", [False, True])
def test_entries_of_8_bits_are_read_in_words_and_packed(tmp_path, name, sequence, packed):
    syntax = SYNTAXES[name]
    big = not syntax.is_little_endian
    entries = (np.arange(256) * 7 % 251).astype(np.uint8)
    item = table(0, entries, bits=8, big=big)
    if packed:
        # The first of two entries lies in the lower byte of the word (PS3.3 C.7.6.3.1.6).
        words = entries[0::2].astype(np.uint16) | entries[1::2].astype(np.uint16) << 8
        item["LUTData"].value = words.astype(">u2" if big else "<u2").tobytes()
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ds = dataset(pixels, **{sequence: [item]})
    result = decoded(dicom_bytes(ds, syntax), tmp_path, spec=same_size(pixels))
    np.testing.assert_array_equal(result.pixels.ravel(), np.rint(entries / 250.0 * 255))


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize(("signed", "first"), [(False, 0), (False, 20), (True, -100)])
@pytest.mark.parametrize("bits", [8, 16])
def test_palette_gives_its_colours_in_every_byte_order(tmp_path, name, signed, first, bits):
    syntax = SYNTAXES[name]
    big = not syntax.is_little_endian
    top = (1 << bits) - 1
    tables = {
        "Red": np.arange(200) * 5 % (top + 1), "Green": top - np.arange(200), "Blue": np.arange(200) ** 2 % top,
    }  # fmt: skip
    indices = np.linspace(first - 10 if signed or first else 0, first + 220, 900).astype(int).reshape(30, 30)
    pixels = indices.astype(np.int16 if signed else np.uint16)
    ds = dataset(pixels, PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in tables.items():
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [200, first, bits])
        ds[f"{colour}PaletteColorLookupTableDescriptor"].VR = "SS" if signed else "US"
        words = entries.astype(np.uint16)
        if bits == 8:
            words = words[0::2] | words[1::2] << 8
        setattr(ds, f"{colour}PaletteColorLookupTableData", words.astype(">u2" if big else "<u2").tobytes())
        ds[f"{colour}PaletteColorLookupTableData"].VR = "OW"
    result = decoded(dicom_bytes(ds, syntax), tmp_path, spec=same_size(pixels))
    place = np.clip(indices - first, 0, 199)
    right = np.stack([entries[place] for entries in tables.values()], axis=-1) / top * 255
    np.testing.assert_array_equal(result.pixels, np.rint(right))


def palette(data, *, bits=16, count=6, segmented=True):
    ds = Dataset()
    ds.set_original_encoding(False, True)
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [count, 0, bits])
        prefix = "Segmented" if segmented else ""
        setattr(ds, f"{prefix}{colour}PaletteColorLookupTableData", data)
    return ds


@pytest.mark.parametrize("bits", [8, 16])
def test_segmented_palette_is_expanded(bits):
    # Discrete 10, 20; linear to 50 in 3 steps; then the first segment again, by its offset in bytes.
    offset = [0, 0, 0, 0] if bits == 8 else [0, 0]
    segments = [0, 2, 10, 20, 1, 3, 50, 2, 1, *offset]
    segments += [0] * (len(segments) % 2)
    data = np.array(segments, np.uint8 if bits == 8 else "<u2").tobytes()
    pixels = np.arange(7, dtype=np.uint8).reshape(1, 7)
    colours, _ = palette_colours(pixels, palette(data, bits=bits, count=7), inputs=(0, 255))
    assert colours.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert colours[0, :, 0].tolist() == [10, 20, 30, 40, 50, 10, 20]


@pytest.mark.parametrize(
    "segments", [[1, 3, 50, 0], [9, 1, 1, 1], [0, 1, 7, 0], [0, 1, 5, 2, 1, 6, 0, 2, 1, 6, 0, 0]]
)
def test_segmented_palette_that_means_nothing_is_refused(segments):
    with pytest.raises(ImageRefused, match="segment") as refusal:
        palette_colours(
            np.zeros((1, 1), np.uint8), palette(np.array(segments, "<u2").tobytes(), count=9), inputs=(0, 255)
        )
    assert refusal.value.reason is Reason.UNREADABLE


def test_palette_without_a_table_is_refused(tmp_path):
    ds = dataset(np.zeros((4, 4), np.uint8), PhotometricInterpretation="PALETTE COLOR")
    assert_refused(dicom_bytes(ds), tmp_path, Reason.UNREADABLE, "RedPaletteColorLookupTableDescriptor")


@needs_dcmtk
@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize("intercept", [0, -1024])
def test_voi_table_looks_as_in_dcmtk(tmp_path, name, intercept):
    syntax = SYNTAXES[name]
    entries = np.rint(65535 * (np.arange(4096) / 4095) ** 2).astype(int)
    entries[:2], entries[3400:] = 0, 65535  # both ends are reached, so that neither program stretches further
    item = table(intercept, entries, vr="SS" if intercept else "US", big=not syntax.is_little_endian)
    ds = dataset(RAMP, bits_stored=12, RescaleSlope=1, RescaleIntercept=intercept, VOILUTSequence=[item])
    content = dicom_bytes(ds, syntax)
    ours = decoded(content, tmp_path, spec=same_size(RAMP)).pixels
    assert np.abs(shown(content, tmp_path, "+Wl", "1").astype(int) - ours).max() <= 1
