"""Stored image -> 8-bit picture, by modality; the names and parameters stand in `PreprocessSpec.to_json`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.errors import ImageRefused, Note, Reason
from embedstore.images.preprocess import CT_WINDOWS_HU, ByteImage
from embedstore.images.stored_image import DICOM, RASTER, StoredImage
from embedstore.values.window import FloatArray, Levels, apply_voi, levels_of, to_modality

_HOUNSFIELD = ("HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS")


@dataclass(frozen=True, eq=False)
class Rendering:
    """An 8-bit picture, and what was mended or left out to make it.

    Parameters
    ----------
    pixels
        (h, w) grey or (h, w, 3) RGB uint8.
    notes
        Those of the stored pixels, of their meaning as far as it was used, and of the recipe.
    """

    pixels: ByteImage
    notes: frozenset[Note]


def needs_series_range(image: StoredImage) -> bool:
    """Return whether the value range of its series is needed to render the image: grey MR, no picture."""
    return (
        image.modality == "MR" and image.pixels.ndim == 2 and not image.is_capture and not _is_picture(image)
    )


def render(image: StoredImage, value_range: tuple[float, float] | None) -> ByteImage:
    """Return the picture of `render_with_notes` alone."""
    return render_with_notes(image, value_range).pixels


def render_with_notes(image: StoredImage, value_range: tuple[float, float] | None) -> Rendering:
    """Render one stored image by the recipe of its modality.

    Parameters
    ----------
    image
        The stored pixels and their meaning.
    value_range
        For an image that `needs_series_range`: the modality values that become 0 and 255.

    Raises
    ------
    ImageRefused
        With ``unsupported`` for a CT that does not say how its values become Hounsfield units; as
        `levels_of`, `to_modality` and `apply_voi` otherwise.
    """
    if image.pixels.ndim == 3:
        as_stored = image.pixels.dtype == np.uint8 and image.bits == 8
        return Rendering(_as_bytes(image.pixels) if as_stored else _scaled_colour(image), image.notes)
    notes = image.notes | image.meaning.notes
    if _is_picture(image):
        return Rendering(_as_bytes(image.pixels), notes)
    if image.modality == "CT" and image.container == DICOM:
        if _is_hounsfield(image):
            return Rendering(render_ct(image), notes)
        if not image.is_capture:
            notes |= {Note.NOT_HOUNSFIELD}
    elif needs_series_range(image):
        if value_range is None:
            raise ValueError("value_range must be the range of the series for an MR image; found None")
        return Rendering(render_mr(image, value_range), notes)
    pixels, voi_notes = _radiograph(image)
    return Rendering(pixels, notes | voi_notes)


def render_radiograph(image: StoredImage) -> ByteImage:
    """Stretch the image's own range to 0 ... 255 after modality LUT and VOI, where the file has them.

    MONOCHROME1 is inverted. Padding takes no part in the range and is black; so is an image of one value. A
    VOI that leaves one level of an image of several is left out: it was written in other units.
    """
    return _radiograph(image)[0]


def _radiograph(image: StoredImage) -> tuple[ByteImage, frozenset[Note]]:
    levels = levels_of(image.pixels, image.meaning)
    shown = to_modality(levels.stored, image.meaning.modality)
    present, notes = levels.present(), image.meaning.voi_notes
    if image.meaning.voi is not None:
        plain, shown = shown, apply_voi(shown, image.meaning.voi)
        if _levels(shown[present]) < 2 <= _levels(plain[present]):
            shown, notes = plain, notes | {Note.WINDOW_DROPPED}
    used = shown[present]
    if not len(used):
        return np.zeros(image.pixels.shape, np.uint8), notes
    unit = _unit_range(shown, float(used.min()), float(used.max()))
    if image.meaning.inverted and used.min() < used.max():
        unit = 1 - unit
    return _looked_up(_to_bytes(unit), levels), notes


def render_ct(image: StoredImage) -> ByteImage:
    """Show three windows in Hounsfield units as red, green and blue (h, w, 3), rounded; padding is black."""
    if image.meaning.modality is None:
        raise ImageRefused(
            Reason.UNSUPPORTED,
            "a CT must say how its values become Hounsfield units; found neither RescaleSlope and"
            " RescaleIntercept nor a Modality LUT",
        )
    levels = levels_of(image.pixels, image.meaning)
    hounsfield = to_modality(levels.stored, image.meaning.modality)
    channels = [_to_bytes(_unit_range(hounsfield, low, high)) for low, high in CT_WINDOWS_HU]
    return _looked_up(np.stack(channels, axis=-1), levels)


def render_mr(image: StoredImage, value_range: tuple[float, float]) -> ByteImage:
    """Stretch the range of the series to 0 ... 255 and clip beyond; no window; padding is black."""
    levels = levels_of(image.pixels, image.meaning)
    unit = _unit_range(to_modality(levels.stored, image.meaning.modality), *value_range)
    if image.meaning.inverted and value_range[0] < value_range[1]:
        unit = 1 - unit
    return _looked_up(_to_bytes(unit), levels)


def _looked_up(table: ByteImage, levels: Levels) -> ByteImage:
    table[levels.padding] = 0
    return np.take(table, levels.index, axis=0)


def _levels(values: FloatArray) -> int:
    """Return 0, 1 or 2: how many different values there are, more than one counting as two."""
    return 0 if not len(values) else 1 + int(values.min() < values.max())


def _is_hounsfield(image: StoredImage) -> bool:
    """Return whether a CT's modality values are Hounsfield units: it says so, or says nothing and is no capture.

    PS3.3 C.11.1.1.2: RescaleType is HU where it is absent from a CT image; maps of multi-energy CT name another.
    """
    unit = image.meaning.unit
    return unit in _HOUNSFIELD or (not unit and not image.is_capture)


def _is_picture(image: StoredImage) -> bool:
    # An 8-bit PNG or JPEG was rendered by whoever wrote it; stretching it again would undo their window.
    return image.container == RASTER and image.pixels.dtype == np.uint8


def _scaled_colour(image: StoredImage) -> ByteImage:
    # Colour has no window: the whole range of its bits is shown, so that hues stay what they are.
    return _to_bytes(np.clip(image.pixels / (2.0**image.bits - 1), 0.0, 1.0))


def _unit_range(values: FloatArray, low: float, high: float) -> FloatArray:
    if not low < high:
        return np.zeros_like(values)
    # Halving keeps the difference of two values near the largest float64 finite.
    return np.clip((values / 2 - low / 2) / (high / 2 - low / 2), 0.0, 1.0)


def _to_bytes(unit: FloatArray) -> ByteImage:
    return np.rint(unit * 255).astype(np.uint8)


def _as_bytes(pixels: npt.NDArray[np.generic]) -> ByteImage:
    return np.ascontiguousarray(pixels, dtype=np.uint8)
