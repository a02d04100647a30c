"""Decoded words -> stored values: the BitsStored bits that end at HighBit, with the sign of PixelRepresentation.

PS3.5 8.1.1: bits outside of these are no pixel values, whatever they hold (overlays, in old files). A lossless
codestream may carry the whole word or the value alone; its precision tells the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from embedstore.errors import ImageRefused, Note, Reason
from embedstore.values.window import StoredArray

_CODING_ERROR = 1 / 8  # of the range: ringing at a sharp edge overshoots by about 9 % of its step


@dataclass(frozen=True)
class StoredBits:
    """Where the value of a sample lies in its word.

    Parameters
    ----------
    allocated, stored
        BitsAllocated and BitsStored, 1 to 64.
    high
        HighBit: the place of the value's highest bit.
    signed
        PixelRepresentation 1: the values are in two's complement.
    """

    allocated: int
    stored: int
    high: int
    signed: bool

    def __post_init__(self) -> None:
        if not (1 <= self.stored <= self.allocated <= 64 and self.stored - 1 <= self.high < self.allocated):
            raise ImageRefused(
                Reason.UNREADABLE,
                "BitsStored bits must end at HighBit within BitsAllocated; found BitsStored"
                f" {self.stored}, HighBit {self.high}, BitsAllocated {self.allocated}",
            )

    @classmethod
    def from_options(cls, options: Mapping[str, Any], high_bit: object) -> Self:
        """Read the Image Pixel module as `pydicom.pixels` names it; a missing HighBit is the usual one."""
        allocated = int(options["bits_allocated"])
        stored = int(options.get("bits_stored") or allocated)
        high = stored - 1 if high_bit in (None, "") else int(str(high_bit))
        return cls(allocated, stored, high, options.get("pixel_representation") == 1)

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value."""
        half = 1 << (self.stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


def stored_values(
    words: StoredArray, bits: StoredBits, *, precision: int | None = None, lossy: bool = False
) -> tuple[StoredArray, frozenset[Note]]:
    """Return the stored values of decoded words, and what was done to get them.

    Parameters
    ----------
    words
        Integers of any shape, signed or not, as the file or its codec gives them.
    bits
        Where the values lie.
    precision
        Bits of a sample in the codestream, or None where whole words are stored (native, RLE). A stream of at
        most BitsStored bits holds the values alone, so that HighBit says nothing about it; its sign bit is its
        own highest (PS3.5 8.2: the stream's bit depth is the one that counts).
    lossy
        The words only approximate those that were compressed: what lies beyond the range is a coding error of
        the nearest value and not the remains of other bits.

    Returns
    -------
    values
        Of the same size as `words`, and the type of `words` or its signed or unsigned counterpart.
    notes
        `Note.HIGH_BIT` and `Note.BITS_OUTSIDE`.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if lossy values lie beyond the range by more than an eighth of it.
    """
    words = words.astype(words.dtype.newbyteorder("="), copy=False)
    values_alone = precision is not None and precision <= bits.stored
    shift = 0 if values_alone else bits.high + 1 - bits.stored
    width = min(bits.stored, precision) if precision is not None else bits.stored
    kind = np.dtype(f"{'i' if bits.signed else 'u'}{words.dtype.itemsize}")
    low, high = StoredBits(bits.allocated, width, width - 1, bits.signed).range
    notes = {Note.HIGH_BIT} if shift else set()
    if not shift and (words.dtype == kind or not bits.signed) and words.size:
        least, most = int(words.min()), int(words.max())
        if least >= low and most <= high:
            return words.astype(kind, copy=False), frozenset()
        if lossy and words.dtype == kind:
            return _clipped(words, low, high), frozenset()
    # In unsigned words a shift to the right brings no sign along.
    raw = words.view(f"u{words.dtype.itemsize}")
    above = 8 * raw.dtype.itemsize - width
    mask = raw.dtype.type((1 << width) - 1)
    value = (raw >> raw.dtype.type(shift)) & mask
    if bits.signed:
        value = (value << raw.dtype.type(above)).view(kind) >> kind.type(above)
    if _holds_more(raw, value, shift=shift, width=width):
        notes.add(Note.BITS_OUTSIDE)
    return value, frozenset(notes)


def _clipped(words: StoredArray, low: int, high: int) -> StoredArray:
    """Return lossy values within their range; refuse what no coding error explains."""
    beyond = max(low - int(words.min()), int(words.max()) - high)
    if beyond > (high - low + 1) * _CODING_ERROR:
        raise ImageRefused(
            Reason.UNREADABLE,
            f"the compressed values must lie between {low} and {high} (BitsStored); found"
            f" {words.min()} to {words.max()}",
        )
    return np.clip(words, low, high)


def _holds_more(raw: StoredArray, value: StoredArray, *, shift: int, width: int) -> bool:
    """Return whether words hold bits outside of their values that are neither zero nor the sign's copies."""
    filled = value.view(raw.dtype) << raw.dtype.type(shift)
    zeros = filled & raw.dtype.type(((1 << width) - 1) << shift & ((1 << 8 * raw.dtype.itemsize) - 1))
    return not bool(((raw == filled) | (raw == zeros)).all())
