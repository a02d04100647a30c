"""A rectangle of a picture at fractions of a pixel -> encoder input, by the resampling of whole pictures."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from embedstore.errors import ImageRefused, Reason, UsageError
from embedstore.images.preprocess import HF_RESAMPLINGS, ByteImage, PreprocessSpec, squash_bilinear

AXES = ("+c+r", "-c+r", "+c-r", "-c-r", "+r+c", "-r+c", "+r-c", "-r-c")
_LONGEST_SIDE_PX = 1 << 13  # 64 MiB of grey
_PLACES = 9  # decimals of a pixel; boxes have four
# How far a filter reaches, in pixels of the picture at least and in pixels of the crop where that is coarser.
_REACH = {Image.Resampling.BILINEAR: 1.0, Image.Resampling.BICUBIC: 2.0}


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


def crop_to_square(pixels: ByteImage, box: CropBox, spec: PreprocessSpec) -> ByteImage:
    """Resample a box of a picture to the square that the encoder takes, in one step.

    The edges of the box need not fall between pixels. What it shows beyond the picture is black, as are the margins
    of a padded picture; pixels beside the box take part at its edges as far as the filter reaches.

    Parameters
    ----------
    pixels
        (h, w) grey or (h, w, 3) RGB uint8.
    box
        The rectangle, and how it is turned.
    spec
        Size and filter: Pillow's antialiased bilinear for ``pad``, that of the checkpoint for ``hf``, bilinear without
        antialiasing for ``eval``. Both sides of the box become `PreprocessSpec.size_px`, so a box that is square in
        millimetres shows anatomy as it is, whatever the shape of the pixels.

    Returns
    -------
    (size, size) or (size, size, 3) uint8.

    Raises
    ------
    ImageRefused
        With ``bad-geometry`` if no pixel of the picture lies in the box, or the box is less than a pixel or more than
        8,192 pixels wide or high.
    """
    _require_usable(box, pixels.shape)
    resampling = HF_RESAMPLINGS[spec.hf_resample] if spec.preset == "hf" else Image.Resampling.BILINEAR
    piece, left, top = _cut(pixels, box, size_px=spec.size_px, reach=_REACH[resampling])
    width, height = box.width_px, box.height_px
    if box.axes[1] == "r":
        piece, left, top, width, height = piece.swapaxes(0, 1), top, left, height, width
    if box.axes[0] == "-":
        piece, left = piece[:, ::-1], piece.shape[1] - left - width
    if box.axes[2] == "-":
        piece, top = piece[::-1], piece.shape[0] - top - height
    # Without the noise of sums, so that a mirrored picture has the mirrored square.
    left, top, right, bottom = (round(edge, _PLACES) for edge in (left, top, left + width, top + height))
    edges = (left, top, right, bottom)
    piece = np.ascontiguousarray(piece)
    if spec.preset == "eval":
        return squash_bilinear(piece, spec.size_px, edges)
    return np.asarray(Image.fromarray(piece).resize((spec.size_px, spec.size_px), resampling, edges))


def _require_usable(box: CropBox, shape: tuple[int, ...]) -> None:
    sides = (box.width_px, box.height_px)
    if not (min(sides) >= 1 and max(sides) <= _LONGEST_SIDE_PX):
        raise ImageRefused(
            Reason.BAD_GEOMETRY,
            f"a crop must be 1 to {_LONGEST_SIDE_PX:,} pixels wide and high; found {sides[0]:g} x {sides[1]:g}",
        )
    height, width = shape[:2]
    beside = box.left_px >= width or box.left_px + box.width_px <= 0
    if beside or box.top_px >= height or box.top_px + box.height_px <= 0:
        raise ImageRefused(
            Reason.BAD_GEOMETRY,
            f"a crop of columns {box.left_px:g} to {box.left_px + box.width_px:g} and rows {box.top_px:g} to "
            f"{box.top_px + box.height_px:g} misses the image of {width} columns and {height} rows",
        )


def _cut(pixels: ByteImage, box: CropBox, *, size_px: int, reach: float) -> tuple[ByteImage, float, float]:
    """Return the pixels that the filter needs, black beyond the picture, and where the box begins in them."""
    first_column, columns = _span(box.left_px, box.width_px, size_px, reach)
    first_row, rows = _span(box.top_px, box.height_px, size_px, reach)
    piece = np.zeros((rows, columns, *pixels.shape[2:]), np.uint8)
    inside = pixels[
        max(first_row, 0) : max(first_row + rows, 0), max(first_column, 0) : max(first_column + columns, 0)
    ]
    row, column = max(-first_row, 0), max(-first_column, 0)
    piece[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return piece, box.left_px - first_column, box.top_px - first_row


def _span(start: float, length: float, size_px: int, reach: float) -> tuple[int, int]:
    """Return the first pixel along one axis that the filter needs, and how many there are."""
    margin = math.ceil(reach * max(length / size_px, 1.0)) + 1
    first = math.floor(start) - margin
    return first, math.ceil(start + length) + margin - first
