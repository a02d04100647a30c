"""A rectangle of an image that is a record of its own, and how it lies in the picture."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from embedstore.errors import UsageError

AXES = ("+c+r", "-c+r", "+c-r", "-c-r", "+r+c", "-r+c", "+r-c", "-r-c")
_MARK = "#crop="


@dataclass(frozen=True)
class CropBox:
    """A rectangle in stored pixels, fractions of a pixel included, and how it is turned for the encoder.

    Parameters
    ----------
    left_px, top_px
        Its first edges; 0 is the outer edge of the first pixel, so that the centre of pixel 0 lies at 0.5. A box may
        reach beyond the image.
    width_px, height_px
        Its sides along the image's columns and rows.
    axes
        What the crop's columns, and then its rows, follow in the image: ``+c+r`` the columns and rows as they are
        stored, ``-c+r`` mirrored columns, ``+r+c`` columns and rows exchanged, and so on (`AXES`).

    Raises
    ------
    UsageError
        If a number is not finite, a side is not positive, or `axes` is none of `AXES`.

    Examples
    --------
    >>> CropBox(10.5, 20.0, 4.0, 8.0, "-c+r").axes
    '-c+r'
    """

    left_px: float
    top_px: float
    width_px: float
    height_px: float
    axes: str = "+c+r"

    def __post_init__(self) -> None:
        numbers = (self.left_px, self.top_px, self.width_px, self.height_px)
        if not all(map(math.isfinite, numbers)) or self.width_px <= 0 or self.height_px <= 0:
            raise UsageError(f"a crop's edges must be finite and its sides positive; found {numbers}")
        if self.axes not in AXES:
            raise UsageError(f"axes must be one of {', '.join(AXES)}; found {self.axes!r}")

    def sha256(self, picture_sha256: bytes) -> bytes:
        """Return the digest (32 bytes) of this crop of the picture with a digest: two crops of one are two images."""
        numbers = (self.left_px, self.top_px, self.width_px, self.height_px)
        text = "".join(f"{number:.4f}," for number in numbers) + self.axes
        return hashlib.sha256(picture_sha256 + text.encode()).digest()


def crop_id(image_id: str, name: str) -> str:
    """Return the id of a crop of an image.

    Examples
    --------
    >>> crop_id("a/1.dcm", "axial_t2,l4_l5,left")
    'a/1.dcm#crop=axial_t2,l4_l5,left'
    """
    return f"{image_id}{_MARK}{name}"


def image_of_crop(image_id: str) -> str:
    """Return the id of the image that a crop was cut from; any other id is its own.

    Examples
    --------
    >>> image_of_crop("a/1.dcm#crop=axial_t2,l4_l5,left"), image_of_crop("a/1.dcm")
    ('a/1.dcm', 'a/1.dcm')
    """
    return image_id.partition(_MARK)[0]
