"""Where every slice of a series lies: stack, place in its stack, position along the normal, plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.geometry import (
    STACK_TOLERANCE_DEGREES,
    FloatArray,
    Numbers,
    checked_positions,
    planes,
    positions_along_mm,
    slice_centres_mm,
    split_stacks,
    stack_axis,
)


@dataclass(frozen=True)
class Placement:
    """Where each slice of a series lies; every array is (n,), in the order in which the slices were given.

    Parameters
    ----------
    stack
        int64: number of the stack of equal orientation, from 0 in order of first appearance.
    index
        int64: rank in its stack along `position_mm`, from 0.
    position_mm
        float64: projection of ImagePositionPatient on the stack's axis (`stack_axis`).
    fraction
        float64 in [0, 1]: `position_mm` from the first slice of the stack to the last; 0.5 where the
        stack has a single position.
    left_right_mm
        float64: patient x of the slice's centre; positive to the patient's left.
    plane
        str: ``sagittal``, ``coronal``, ``axial`` or ``oblique``.
    """

    stack: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    position_mm: FloatArray
    fraction: FloatArray
    left_right_mm: FloatArray
    plane: npt.NDArray[np.str_]


def place_slices(
    orientations: Numbers,
    positions_mm: Numbers,
    spacings_mm: Numbers,
    shapes_px: Numbers,
    *,
    tolerance_degrees: float = STACK_TOLERANCE_DEGREES,
) -> Placement:
    """Split one series into stacks and place each slice in its own.

    Parameters
    ----------
    orientations
        (n, 6) ImageOrientationPatient.
    positions_mm
        (n, 3) ImagePositionPatient.
    spacings_mm
        (n, 2) PixelSpacing: between rows, between columns.
    shapes_px
        (n, 2) rows, columns.
    tolerance_degrees
        As in `split_stacks`.

    Raises
    ------
    ImageRefused
        With ``bad-geometry`` for values that `valid_geometry` rejects; mask such slices first.
    """
    cosines = np.reshape(np.asarray(orientations, np.float64), (-1, 6))
    places = np.reshape(checked_positions(positions_mm), (-1, 3))
    stack = split_stacks(cosines, tolerance_degrees=tolerance_degrees)
    index = np.zeros(len(stack), np.int64)
    along = np.zeros(len(stack))
    fraction = np.full(len(stack), 0.5)
    for number in range(int(stack.max(initial=-1)) + 1):
        rows = np.flatnonzero(stack == number)
        along[rows] = positions_along_mm(stack_axis(cosines[rows]), places[rows])
        index[rows[np.argsort(along[rows], kind="stable")]] = np.arange(len(rows))
        extent_mm = np.ptp(along[rows])
        if extent_mm > 0:
            fraction[rows] = (along[rows] - along[rows].min()) / extent_mm
    centres_mm = slice_centres_mm(cosines, places, spacings_mm, shapes_px)
    return Placement(stack, index, along, fraction, centres_mm[:, 0], planes(cosines))
