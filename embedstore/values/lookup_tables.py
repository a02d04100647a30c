"""Lookup tables of a DICOM header: of grey values (PS3.3 C.11.1, C.11.2) and of palettes (C.7.6.3.1.5, C.7.9.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from embedstore.errors import ImageRefused, Note, Reason
from embedstore.values.window import NO_MEANING, LookupTable, StoredArray, levels_of

Range = tuple[float, float]
Encoding = tuple[bool, bool]
_Integers = npt.NDArray[np.int64]

_COLOURS = ("Red", "Green", "Blue")
_MAX_ENTRIES = 1 << 16


def lookup_table(item: Dataset, *, encoding: Encoding, inputs: Range) -> tuple[LookupTable, frozenset[Note]]:
    """Read the table of a Modality or VOI LUT Sequence item.

    Parameters
    ----------
    item
        Holds LUTDescriptor and LUTData.
    encoding
        Whether the file has implicit VR, which says nothing of a sign, and whether it is little-endian.
    inputs
        Lowest and highest value that may be looked up; they decide the sign of the first input value.

    Returns
    -------
    The table, and `Note.LUT_SIGN` if the sign written is not the one that was taken.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if the descriptor is not three numbers or entries are missing.
    """
    count, first, _, notes = _descriptor(item["LUTDescriptor"], encoding, inputs)
    entries = _entries(item["LUTData"].value, encoding[1], count=count)
    return LookupTable(first, entries.astype(np.float64)), notes


def palette_colours(
    pixels: StoredArray, header: Dataset, *, inputs: Range
) -> tuple[StoredArray, frozenset[Note]]:
    """Return the colours (h, w, 3) of palette indices (h, w): uint8, or uint16 for a table of 16 bits.

    Parameters
    ----------
    pixels
        Stored values.
    header
        Holds the Palette Color Lookup Table module, plain or segmented.
    inputs
        Lowest and highest value that the pixels may have.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if a table is missing or shorter than it says.
    """
    encoding = encoding_of(header)
    little_endian = encoding[1]
    planes, notes, widest = [], frozenset[Note](), 8
    levels = levels_of(pixels, NO_MEANING)
    for colour in _COLOURS:
        name = f"{colour}PaletteColorLookupTable"
        if f"{name}Descriptor" not in header:
            raise ImageRefused(Reason.UNREADABLE, f"a PALETTE COLOR image needs {name}Descriptor")
        count, first, bits, signs = _descriptor(header[f"{name}Descriptor"], encoding, inputs)
        if f"{name}Data" in header:
            words = _entries(header[f"{name}Data"].value, little_endian, count=count)
        elif f"Segmented{name}Data" in header:
            words = _expanded(header[f"Segmented{name}Data"].value, little_endian, count=count, bits=bits)
        else:
            raise ImageRefused(Reason.UNREADABLE, f"a PALETTE COLOR image needs {name}Data")
        if bits <= 8 and words.max(initial=0) > 0xFF:
            words = words >> 8  # entries of 16 bits that the descriptor calls 8: the upper byte is the colour
        place = np.clip(levels.stored.astype(np.int64) - first, 0, count - 1)
        planes.append(words[place].astype(np.uint16)[levels.index])
        notes |= signs
        widest = max(widest, bits)
    return np.stack(planes, axis=-1).astype(np.uint8 if widest <= 8 else np.uint16), notes


def encoding_of(header: Dataset) -> Encoding:
    """Return whether a file has implicit VR, and whether it is little-endian."""
    implicit, little_endian = header.original_encoding
    return bool(implicit), bool(little_endian)


def _descriptor(element: Any, encoding: Encoding, inputs: Range) -> tuple[int, int, int, frozenset[Note]]:
    """Return the number of entries, the first input value, the bits of an entry, and what was mended."""
    implicit, little_endian = encoding
    descriptor = _integers(element.value, little_endian)
    if len(descriptor) != 3:
        raise ImageRefused(
            Reason.UNREADABLE, f"a lookup table's descriptor must be 3 numbers; found {len(descriptor)}"
        )
    # PS3.3 C.11.1.1.1: 0 stands for 65,536; a table of a signed image may be read as negative.
    count = int(descriptor[0]) & 0xFFFF or _MAX_ENTRIES
    written = int(descriptor[1])
    first = _first_input(written, count, inputs)
    # Implicit VR says nothing of a sign: only a VR that was written can contradict.
    mistaken = first != written and not implicit
    notes = frozenset({Note.LUT_SIGN}) if mistaken else frozenset[Note]()
    return count, first, int(descriptor[2]) & 0xFF, notes


def _first_input(written: int, count: int, inputs: Range) -> int:
    """Return the first input value with the sign of what is looked up (PS3.3 C.11.1.1.1 and C.11.2.1.1).

    The standard gives the sign to the kind of input: signed where it may be negative. Where only the other sign
    makes the table meet any input at all, that one is taken.
    """
    unsigned = written & 0xFFFF
    signed = unsigned - 0x10000 if unsigned >= 0x8000 else unsigned
    low, high = inputs
    by_rule, other = (signed, unsigned) if low < 0 else (unsigned, signed)

    def meets(first: int) -> bool:
        return first <= high and first + count - 1 >= low

    return other if meets(other) and not meets(by_rule) else by_rule


def _entries(value: Any, little_endian: bool, *, count: int) -> _Integers:
    """Return the `count` entries of a table, unpacking two of 8 bits from each word."""
    entries = _integers(value, little_endian) & 0xFFFF
    if len(entries) < count <= 2 * len(entries):
        # Two 8-bit entries in each 16-bit word, the first in the lower byte (PS3.3 C.7.6.3.1.6).
        entries = np.stack([entries & 0xFF, entries >> 8], axis=1).ravel()
    if len(entries) < count:
        raise ImageRefused(
            Reason.UNREADABLE, f"a lookup table of {count} entries has only {len(entries)} of them"
        )
    return entries[:count]


def _integers(value: Any, little_endian: bool) -> _Integers:
    """Return a LUT element's numbers; VR OW and an unresolved "US or SS" arrive as bytes."""
    if isinstance(value, bytes):
        value += b"\0" * (len(value) % 2)
        return np.frombuffer(value, "<u2" if little_endian else ">u2").astype(np.int64)
    return np.atleast_1d(np.asarray(value, np.int64))


def _expanded(value: Any, little_endian: bool, *, count: int, bits: int) -> _Integers:
    """Return the `count` entries of a segmented table (PS3.3 C.7.9.2)."""
    words = _integers(value, little_endian) & 0xFFFF
    size = 1 if bits <= 8 else 2
    if size == 1:
        words = np.stack([words & 0xFF, words >> 8], axis=1).ravel()
    data = words.tolist()
    found: list[int] = []
    _expand(data, 0, None, found, size=size, nested=False)
    if len(found) < count:
        raise ImageRefused(Reason.UNREADABLE, f"a segmented table of {count} entries has only {len(found)}")
    return np.array(found[:count], np.int64)


def _expand(
    data: list[int], place: int, segments: int | None, found: list[int], *, size: int, nested: bool
) -> None:
    """Append the entries of segments from `place` on, all of them or a number."""
    while place + 2 < len(data) and (segments is None or segments > 0) and len(found) < _MAX_ENTRIES:
        kind, length = data[place], data[place + 1]
        place += 2
        if kind == 0:  # C.7.9.2.1: discrete
            found.extend(data[place : place + length])
            place += length
        elif kind == 1 and found:  # C.7.9.2.2: linear, from the entry before to the one given
            steps = np.arange(1, length + 1) * (data[place] - found[-1]) / max(length, 1) + found[-1]
            found.extend(np.rint(steps).astype(int).tolist())
            place += 1
        elif kind == 2 and not nested:  # C.7.9.2.3: indirect, an offset in bytes, lower half first
            parts = data[place : place + 4 // size]
            offset = sum(part << (8 * size * number) for number, part in enumerate(parts))
            _expand(data, offset // size, length, found, size=size, nested=True)
            place += 4 // size
        else:
            raise ImageRefused(
                Reason.UNREADABLE, f"a segmented lookup table has no segment of kind {kind} here"
            )
        segments = None if segments is None else segments - 1
