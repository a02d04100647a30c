"""Stored values -> what they mean: modality LUT, VOI window or LUT, padding (DICOM PS3.3 C.11.1, C.11.2).

Everything here is a function of one stored value, so it is computed once per distinct value of an image
(`Levels`) in float64 and looked up for the pixels: exact, and cheaper than arithmetic on every pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import ImageRefused, Note, Reason

FloatArray = npt.NDArray[np.float64]
StoredArray = npt.NDArray[Any]  # any integer or float type

# Beyond this spread (32-bit data) a table of all values in between is larger than sorting is slow.
_TABLE_VALUES = 1 << 16


@dataclass(frozen=True)
class Rescale:
    """Modality values are ``slope * stored + intercept``."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True, eq=False)
class LookupTable:
    """Values below `first` take the first entry, values beyond the table the last.

    Parameters
    ----------
    first
        Input value that maps to ``entries[0]``.
    entries
        (k,) float64.
    """

    first: int
    entries: FloatArray


@dataclass(frozen=True)
class Window:
    """VOI window in modality units; `function` is ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``."""

    center: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True)
class GreyMeaning:
    """What the stored values of a grey image mean.

    Parameters
    ----------
    modality
        To modality units (HU for CT), or None where the file says nothing.
    voi
        How the maker of the image wants it shown, or None.
    inverted
        MONOCHROME1: the lowest value is white.
    padding
        Lowest and highest stored value that stand for "no image here", both NaN where NaN does, or None.
    unit
        Of modality values, as RescaleType says it (``HU``, ``MGML``); ``""`` where nothing is said.
    notes
        What was mended or left out for everything but the window.
    voi_notes
        The same for `voi`; they matter where it is used.
    """

    modality: Rescale | LookupTable | None = None
    voi: Window | LookupTable | None = None
    inverted: bool = False
    padding: tuple[float, float] | None = None
    unit: str = ""
    notes: frozenset[Note] = frozenset()
    voi_notes: frozenset[Note] = frozenset()


NO_MEANING = GreyMeaning()


@dataclass(frozen=True, eq=False)
class Levels:
    """The distinct stored values of an image and which pixel has which.

    Parameters
    ----------
    stored
        (k,) float64; may hold values between the extremes that no pixel has.
    padding
        (k,) bool: the value means "no image here".
    index
        (h, w) integer: each pixel's place in `stored`.
    """

    stored: FloatArray
    padding: npt.NDArray[np.bool_]
    index: npt.NDArray[Any]

    def present(self) -> npt.NDArray[np.bool_]:
        """Return (k,) bool: some pixel has the value, and it is no padding."""
        found = np.zeros(len(self.stored), np.bool_)
        found[self.index.ravel()] = True
        return found & ~self.padding


def levels_of(pixels: StoredArray, meaning: GreyMeaning) -> Levels:
    """Return the distinct values of stored pixels (h, w).

    Raises
    ------
    ImageRefused
        With ``non-finite`` if float pixels that are no padding hold NaN or infinity.
    """
    if pixels.dtype.kind == "f":
        return _float_levels(pixels, meaning.padding)
    low, high = pixels.min(), pixels.max()
    index: npt.NDArray[Any]
    if int(high) - int(low) < _TABLE_VALUES:
        stored = np.arange(int(low), int(high) + 1, dtype=np.float64)
        # Widening first: the difference of two int16 may not fit int16.
        index = pixels if low == 0 else np.subtract(pixels, low, dtype=np.int64)
    else:
        distinct, index = np.unique(pixels, return_inverse=True)
        stored, index = distinct.astype(np.float64), index.reshape(pixels.shape)
    padding = np.zeros(len(stored), np.bool_)
    if meaning.padding is not None:
        padding = (stored >= meaning.padding[0]) & (stored <= meaning.padding[1])
    return Levels(stored, padding, index)


def _float_levels(pixels: StoredArray, padding: tuple[float, float] | None) -> Levels:
    """Return the levels of float pixels; all padding, which may be NaN or infinite, is one level at the end."""
    padded = np.zeros(pixels.shape, np.bool_)
    if padding is not None:
        padded = np.isnan(pixels) if np.isnan(padding[0]) else (pixels >= padding[0]) & (pixels <= padding[1])
    shown = pixels[~padded]
    if not np.isfinite(shown).all():
        raise ImageRefused(
            Reason.NON_FINITE,
            "the pixels hold NaN or infinity that the header does not name as padding; they must be finite numbers",
        )
    distinct, places = np.unique(shown, return_inverse=True)
    stored = np.append(distinct.astype(np.float64), distinct[-1] if len(distinct) else 0.0)
    index = np.full(pixels.shape, len(distinct))
    index[~padded] = places.ravel()
    is_padding = np.arange(len(stored)) == len(distinct)
    return Levels(stored, is_padding, index)


def to_modality(stored: FloatArray, transform: Rescale | LookupTable | None) -> FloatArray:
    """Return modality values of stored values, both (k,) float64; without a transform they are the same.

    Raises
    ------
    ImageRefused
        With ``non-finite`` if a value leaves the range of float64.
    """
    if transform is None:
        return stored
    if isinstance(transform, LookupTable):
        return look_up(stored, transform)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored * transform.slope + transform.intercept
    if not np.isfinite(values).all():
        raise ImageRefused(
            Reason.NON_FINITE,
            f"RescaleSlope {transform.slope} and RescaleIntercept {transform.intercept} give infinite values",
        )
    return values


def apply_voi(values: FloatArray, voi: Window | LookupTable) -> FloatArray:
    """Return display values of modality values: a window gives 0 ... 1, a table its entries; (k,) float64.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if the window's width or function is not one that PS3.3 C.11.2.1 defines.
    """
    if isinstance(voi, LookupTable):
        return look_up(values, voi)
    narrowest = 1.0 if voi.function == "LINEAR" else 0.0
    if voi.function not in _WINDOWS:
        raise ImageRefused(
            Reason.UNREADABLE, f"VOILUTFunction must be one of {', '.join(_WINDOWS)}; found {voi.function!r}"
        )
    sound = np.isfinite([voi.center, voi.width]).all() and voi.width >= narrowest and voi.width > 0
    if not sound:
        raise ImageRefused(
            Reason.UNREADABLE,
            f"a {voi.function} window needs a finite center and a width of at least {narrowest:g};"
            f" found center {voi.center:g}, width {voi.width:g}",
        )
    return _WINDOWS[voi.function](values, voi.center, voi.width)


def look_up(values: FloatArray, table: LookupTable) -> FloatArray:
    """Return the table's entries for values (k,), the ends standing for all beyond; fractions go down."""
    place = np.clip(np.floor(values) - table.first, 0, len(table.entries) - 1).astype(np.int64)
    entries: FloatArray = table.entries[place]
    return entries


def _linear(values: FloatArray, center: float, width: float) -> FloatArray:
    # PS3.3 C.11.2.1.2.1: the window covers width - 1 steps around center - 0.5.
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return _ramp(values, center - 0.5, width - 1)


def _ramp(values: FloatArray, center: float, width: float) -> FloatArray:
    # A width near the smallest float64 makes this a step; infinity before the clip is then right.
    with np.errstate(over="ignore"):
        ramp: FloatArray = np.clip((values - center) / width + 0.5, 0.0, 1.0)
    return ramp


def _sigmoid(values: FloatArray, center: float, width: float) -> FloatArray:
    # Beyond +-700 the exponential leaves float64 while the result is 0 or 1 to all digits.
    with np.errstate(over="ignore"):
        steepness = np.clip(-4 * ((values - center) / width), -700, 700)
    curve: FloatArray = 1 / (1 + np.exp(steepness))
    return curve


_WINDOWS: dict[str, Callable[[FloatArray, float, float], FloatArray]] = {
    "LINEAR": _linear,
    "LINEAR_EXACT": _ramp,  # PS3.3 C.11.2.1.3.2
    "SIGMOID": _sigmoid,  # PS3.3 C.11.2.1.3.1
}
WINDOW_FUNCTIONS = tuple(_WINDOWS)
