"""Crops of a given size in millimetres around a point, black where they leave the image."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedstore.errors import ImageRefused, Reason, UsageError

Pixel = TypeVar("Pixel", bound=np.generic)

_MAX_SIDE_PX = 1 << 14


def crop_mm(
    pixels: npt.NDArray[Pixel],
    center_px: tuple[float, float],
    spacing_mm: tuple[float, float],
    *,
    size_mm: float,
) -> npt.NDArray[Pixel]:
    """Cut a square of `size_mm` around a point.

    Parameters
    ----------
    pixels
        (h, w) or (h, w, channels), any type.
    center_px
        **(column, row)** of the point, 0 at the centre of the first pixel.
    spacing_mm
        PixelSpacing: between rows, between columns.
    size_mm
        Side of the square.

    Returns
    -------
    (rows, columns[, channels]) of the same type, ``round(size_mm / spacing)`` each and at least 1; a copy.
    The middle of the crop lies within half a pixel of the point. What lies outside the image is 0.

    Raises
    ------
    ImageRefused
        With ``bad-geometry`` if the spacing is not positive, or no pixel of the image lies in the crop.
    UsageError
        If `size_mm` is not positive.

    Examples
    --------
    >>> crop_mm(np.arange(12).reshape(3, 4), (3, 1), (1.0, 1.0), size_mm=3).tolist()
    [[2, 3, 0], [6, 7, 0], [10, 11, 0]]
    """
    rows, top = _span(center_px[1], spacing_mm[0], size_mm)
    columns, left = _span(center_px[0], spacing_mm[1], size_mm)
    height, width = pixels.shape[:2]
    inside = pixels[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)]
    if not inside.size:
        raise ImageRefused(
            Reason.BAD_GEOMETRY,
            f"a crop of {size_mm:g} mm around column {center_px[0]:g}, row {center_px[1]:g} misses the image"
            f" of {width} columns and {height} rows",
        )
    crop = np.zeros((rows, columns, *pixels.shape[2:]), pixels.dtype)
    first_row, first_column = max(-top, 0), max(-left, 0)
    crop[first_row : first_row + inside.shape[0], first_column : first_column + inside.shape[1]] = inside
    return crop


def crop_mirrored_mm(
    pixels: npt.NDArray[Pixel],
    center_px: tuple[float, float],
    spacing_mm: tuple[float, float],
    *,
    size_mm: float,
) -> npt.NDArray[Pixel]:
    """Cut as `crop_mm` and exchange left and right, which lays a right-sided finding onto the left.

    Columns are mirrored: this is the patient's left and right in axial and coronal slices only.

    Raises
    ------
    ImageRefused, UsageError
        As `crop_mm`.
    """
    return np.ascontiguousarray(crop_mm(pixels, center_px, spacing_mm, size_mm=size_mm)[:, ::-1])


def _span(center_px: float, spacing_mm: float, size_mm: float) -> tuple[int, int]:
    """Return how many pixels the crop has along one axis, and the index of the first."""
    if not (math.isfinite(size_mm) and size_mm > 0):
        raise UsageError(f"size_mm must be a positive number of millimetres; found {size_mm}")
    if not (math.isfinite(spacing_mm) and spacing_mm > 0 and math.isfinite(center_px)):
        raise ImageRefused(
            Reason.BAD_GEOMETRY,
            f"a crop needs a positive spacing and a finite point; found {spacing_mm} mm at {center_px} px",
        )
    length = max(1, round(size_mm / spacing_mm)) if size_mm / spacing_mm < _MAX_SIDE_PX else 0
    if not length:
        raise ImageRefused(
            Reason.BAD_GEOMETRY,
            f"a crop of {size_mm:g} mm at {spacing_mm:g} mm a pixel is more than {_MAX_SIDE_PX} pixels wide",
        )
    # The last ulp of a half pixel must not decide: half a pixel goes towards the first row and column.
    return length, math.ceil(center_px - (length - 1) / 2 - 0.5 - 1e-9)
