"""A rectangle of a picture at fractions of a pixel -> encoder input, by the resampling of whole pictures."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from embedstore.crop_box import CropBox
from embedstore.errors import ImageRefused, Reason
from embedstore.images.preprocess import HF_RESAMPLINGS, ByteImage, PreprocessSpec, squash_bilinear

_LONGEST_SIDE_PX = 1 << 13  # 64 MiB of grey
# How far a filter reaches, in pixels of the picture at least and in pixels of the crop where that is coarser.
_REACH = {Image.Resampling.BILINEAR: 1.0, Image.Resampling.BICUBIC: 2.0}


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
    edges = (left, top, left + width, top + height)
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
