"""A decoded image before any rendering: its stored pixels, what they mean, and their digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from embedstore.errors import Note
from embedstore.values.window import NO_MEANING, GreyMeaning, StoredArray

DICOM = "dicom"
RASTER = "raster"


@dataclass(frozen=True, eq=False)
class StoredImage:
    """One frame as its file stores it.

    Parameters
    ----------
    pixels
        (h, w) grey of any integer or float type, or (h, w, 3) RGB of an unsigned type.
    container
        ``dicom`` or ``raster``.
    modality
        DICOM modality code, or ``""``.
    meaning
        What grey values mean.
    bits
        Significant bits of a stored value.
    is_capture
        A secondary capture: a picture of a screen, whatever its modality says.
    pixel_aspect
        Height of a pixel divided by its width.
    value_kind
        What an MR frame's values are where they are not plain magnitude (`frame_attributes.value_kind`); frames of
        two kinds have no value range in common.
    notes
        What was mended to read the pixels; that of their meaning stands in `meaning`.
    """

    pixels: StoredArray
    container: str
    modality: str = ""
    meaning: GreyMeaning = NO_MEANING
    bits: int = 8
    is_capture: bool = False
    pixel_aspect: float = 1.0
    value_kind: str = ""
    notes: frozenset[Note] = frozenset()


def grey_if_equal(pixels: StoredArray) -> StoredArray:
    """Return (h, w) where the three channels of (h, w, 3) are equal everywhere; else the same array."""
    first = pixels[..., 0]
    # One row tells nearly every colour image apart, so the whole array is compared for grey ones only.
    for rows in (slice(0, 1), slice(None)):
        if not all(np.array_equal(first[rows], pixels[rows, :, channel]) for channel in (1, 2)):
            return pixels
    grey: StoredArray = np.ascontiguousarray(first)
    return grey


def content_sha256(pixels: StoredArray) -> bytes:
    """Return the SHA-256 (32 bytes) over type, shape and little-endian C-order bytes of stored pixels.

    It is taken before windowing, so one image has one digest in every lossless encoding.
    """
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str}{little.shape}".encode())
    digest.update(little.data)
    return digest.digest()
