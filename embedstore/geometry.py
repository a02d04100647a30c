"""Where a slice lies in the patient: normals, planes, order, stacks, and pixels <-> millimetres.

Patient coordinates are DICOM's: x grows to the patient's **left**, y to the back, z to the head, in mm.
A pixel is ``(column, row)``, both from 0 at the *centre* of the first pixel, as DICOM's
ImagePositionPatient. An orientation is the six numbers of ImageOrientationPatient: the direction in which
the column index grows, then the direction in which the row index grows. A spacing is PixelSpacing:
``(between rows, between columns)`` in mm, in that order. All of DICOM PS3.3 C.7.6.2.1.1.

Every function takes n slices at once; leading axes broadcast as in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedstore.errors import ImageRefused, Reason

FloatArray = npt.NDArray[np.float64]
Numbers = npt.ArrayLike | Sequence[float] | Sequence[Sequence[float]]

PLANES = ("sagittal", "coronal", "axial")  # by the axis that the normal follows: x, y, z
OBLIQUE = "oblique"
# A normal within 45 degrees of an axis belongs to that axis: axial lumbar slices follow the discs and are
# tilted by up to about 40 degrees, and are still what everybody calls axial.
_DOMINANT_COSINE = np.sqrt(0.5) + 1e-6
# Decimal strings carry 3 to 10 digits; more than 1 % off unit length or right angle is a broken header.
_COSINE_TOLERANCE = 0.01
_LARGEST_MM = 1e6  # a kilometre: nothing in a scanner, and far from where float64 overflows
STACK_TOLERANCE_DEGREES = 1.0


def valid_geometry(
    orientations: Numbers, positions_mm: Numbers, spacings_mm: Numbers
) -> npt.NDArray[np.bool_]:
    """Return which of n slices have a geometry that the other functions accept.

    Parameters
    ----------
    orientations
        (n, 6) direction cosines; NaN where a header has none.
    positions_mm
        (n, 3) ImagePositionPatient.
    spacings_mm
        (n, 2) PixelSpacing.
    """
    flawless = _orientation_flaws(np.asarray(orientations, np.float64)) == ""
    good: npt.NDArray[np.bool_] = flawless & _usable_positions(positions_mm) & _usable_spacings(spacings_mm)
    return good


def directions(orientations: Numbers) -> tuple[FloatArray, FloatArray]:
    """Return the unit directions of growing column index and growing row index, each (..., 3).

    Raises
    ------
    ImageRefused
        With ``bad-geometry`` if a value is not finite, or the two directions are not two perpendicular
        unit vectors to within 1 %.
    """
    cosines = np.asarray(orientations, np.float64)
    if cosines.ndim == 0 or cosines.shape[-1] != 6:
        raise _refused(f"ImageOrientationPatient must be six numbers; found shape {cosines.shape}")
    flaws = np.atleast_1d(_orientation_flaws(cosines))
    if (flaws != "").any():
        first = int(np.flatnonzero(flaws.ravel() != "")[0])
        values = cosines.reshape(-1, 6)[first].tolist()
        raise _refused(
            f"ImageOrientationPatient {values} {flaws.ravel()[first]}; slice {first} cannot be placed"
        )
    along_columns, along_rows = cosines[..., :3], cosines[..., 3:]
    return (
        along_columns / np.linalg.norm(along_columns, axis=-1, keepdims=True),
        along_rows / np.linalg.norm(along_rows, axis=-1, keepdims=True),
    )


def slice_normal(orientations: Numbers) -> FloatArray:
    """Return the unit normal, column direction x row direction, (..., 3).

    Raises
    ------
    ImageRefused
        As `directions`.

    Examples
    --------
    >>> slice_normal([1, 0, 0, 0, 1, 0]).tolist()
    [0.0, 0.0, 1.0]
    """
    normal = np.cross(*directions(orientations))
    unit: FloatArray = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return unit


def stack_axis(orientations: Numbers) -> FloatArray:
    """Return the mean normal of one stack, (3,), pointing to the patient's left, back or head.

    The sign is that of the largest component, so that positions grow the same way in two series that were
    acquired in opposite directions; the normal itself turns over when rows or columns are mirrored.

    Parameters
    ----------
    orientations
        (n, 6), all nearly equal.

    Raises
    ------
    ImageRefused
        As `directions`.
    """
    mean = np.atleast_2d(slice_normal(orientations)).mean(axis=0)
    largest = int(np.argmax(np.abs(mean).round(6)))
    axis: FloatArray = mean / np.linalg.norm(mean) * (-1.0 if mean[largest] < 0 else 1.0)
    return axis


def planes(orientations: Numbers) -> npt.NDArray[np.str_]:
    """Return the plane's name for each slice, (...,) str.

    The plane is that of the axis within 45 degrees of the normal: x sagittal, y coronal, z axial; a normal
    that no axis is so near to, or that lies midway between two, is ``oblique``.

    Raises
    ------
    ImageRefused
        As `directions`.

    Examples
    --------
    >>> planes([[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]]).tolist()
    ['axial', 'sagittal', 'coronal']
    """
    cosines = np.abs(slice_normal(orientations))
    names = np.array(PLANES)[np.argmax(cosines, axis=-1)]
    return np.where(cosines.max(axis=-1) > _DOMINANT_COSINE, names, OBLIQUE)


def split_stacks(
    orientations: Numbers, *, tolerance_degrees: float = STACK_TOLERANCE_DEGREES
) -> npt.NDArray[np.int64]:
    """Return the number of the stack that each slice of a series belongs to, (n,), from 0.

    Slices belong together when a chain of slices links them in which neighbours differ by at most the
    tolerance, in both directions; so the partition does not depend on the order of the files. Stacks are
    numbered by first appearance.

    Parameters
    ----------
    orientations
        (n, 6) direction cosines.
    tolerance_degrees
        Largest angle between neighbours.

    Raises
    ------
    ImageRefused
        As `directions`.
    """
    along_columns, along_rows = directions(np.reshape(np.asarray(orientations, np.float64), (-1, 6)))
    cosines = np.concatenate([along_columns, along_rows], axis=-1).round(9)
    if not len(cosines):
        return np.zeros(0, np.int64)
    # Real series hold a handful of distinct orientations: the pairwise matrix stays tiny.
    distinct, member = np.unique(cosines, axis=0, return_inverse=True)
    chord = 2 * np.sin(np.radians(tolerance_degrees) / 2) + 1e-9
    difference = distinct[:, None] - distinct[None]
    near = (np.linalg.norm(difference[..., :3], axis=-1) <= chord) & (
        np.linalg.norm(difference[..., 3:], axis=-1) <= chord
    )
    while not np.array_equal(near, linked := near @ near):  # each pass doubles the length of the chains
        near = linked
    component = near.argmax(axis=1)  # the first orientation that a chain reaches names its stack
    _, first, number = np.unique(component[member.ravel()], return_index=True, return_inverse=True)
    rank: npt.NDArray[np.int64] = np.argsort(np.argsort(first))[number].astype(np.int64)
    return rank


def positions_along_mm(axis: Numbers, positions_mm: Numbers) -> FloatArray:
    """Return the projection of ImagePositionPatient (..., 3) on the unit vector `axis` (3,), in mm.

    Raises
    ------
    ImageRefused
        With ``bad-geometry`` if a position is not finite.
    """
    projected: FloatArray = checked_positions(positions_mm) @ np.asarray(axis, np.float64)
    return projected


def slice_order(orientations: Numbers, positions_mm: Numbers) -> npt.NDArray[np.int64]:
    """Return the indices that sort the slices of one stack along its axis, (n,).

    Slices at one position keep the order in which they were given; file names and InstanceNumber play no
    part.

    Raises
    ------
    ImageRefused
        As `directions` and `positions_along_mm`.
    """
    along = positions_along_mm(stack_axis(orientations), positions_mm)
    return np.argsort(along, kind="stable").astype(np.int64)


def slice_centres_mm(
    orientations: Numbers, positions_mm: Numbers, spacings_mm: Numbers, shapes_px: Numbers
) -> FloatArray:
    """Return the patient position of each slice's centre, (..., 3) mm; its first value is left-right.

    Parameters
    ----------
    shapes_px
        (..., 2) rows, columns.

    Raises
    ------
    ImageRefused
        As `pixel_to_patient_mm`.
    """
    last_pixel = np.asarray(shapes_px, np.float64)[..., ::-1] - 1
    return pixel_to_patient_mm(last_pixel / 2, orientations, positions_mm, spacings_mm)


def pixel_to_patient_mm(
    points_px: Numbers, orientations: Numbers, positions_mm: Numbers, spacings_mm: Numbers
) -> FloatArray:
    """Return the patient positions of pixels, (..., 3) mm.

    Parameters
    ----------
    points_px
        (..., 2) **(column, row)**; fractions of a pixel are welcome.
    orientations, positions_mm, spacings_mm
        (..., 6), (..., 3), (..., 2) of the slices, broadcast against the points.

    Raises
    ------
    ImageRefused
        With ``bad-geometry`` if the geometry is not finite or degenerate.

    Examples
    --------
    >>> pixel_to_patient_mm([2, 3], [1, 0, 0, 0, 1, 0], [-10, 20, 5], [0.5, 0.25]).tolist()
    [-9.5, 21.5, 5.0]
    """
    along_columns, along_rows = directions(orientations)
    spacings = _checked_spacings(spacings_mm)
    points = np.asarray(points_px, np.float64)
    patient: FloatArray = (
        checked_positions(positions_mm)
        + along_columns * (spacings[..., 1] * points[..., 0])[..., None]
        + along_rows * (spacings[..., 0] * points[..., 1])[..., None]
    )
    return patient


def patient_mm_to_pixel(
    points_mm: Numbers, orientations: Numbers, positions_mm: Numbers, spacings_mm: Numbers
) -> tuple[FloatArray, FloatArray]:
    """Return the pixels (column, row) nearest to patient positions, and how far off the slice those lie.

    Parameters
    ----------
    points_mm
        (..., 3) patient positions.
    orientations, positions_mm, spacings_mm
        As in `pixel_to_patient_mm`.

    Returns
    -------
    (..., 2) float64 **(column, row)**, which may lie outside the image, and (...,) float64 signed distance
    from the slice in mm, positive on the side of `slice_normal`.

    Raises
    ------
    ImageRefused
        As `pixel_to_patient_mm`.
    """
    along_columns, along_rows = directions(orientations)
    spacings = _checked_spacings(spacings_mm)
    offset = checked_positions(points_mm) - checked_positions(positions_mm)
    # Rounded cosines are not quite perpendicular: solving the 2 x 2 system keeps the round trip exact.
    skew = (along_columns * along_rows).sum(-1)
    on_columns, on_rows = (offset * along_columns).sum(-1), (offset * along_rows).sum(-1)
    column = (on_columns - skew * on_rows) / (1 - skew**2) / spacings[..., 1]
    row = (on_rows - skew * on_columns) / (1 - skew**2) / spacings[..., 0]
    return np.stack([column, row], axis=-1), (offset * slice_normal(orientations)).sum(-1)


def _orientation_flaws(cosines: FloatArray) -> npt.NDArray[np.str_]:
    """Return, for each (..., 6), what is wrong with it, or an empty string."""
    finite = np.logical_and.reduce(np.isfinite(cosines), axis=-1)
    known = np.clip(np.where(finite[..., None], cosines, 0.0), -2.0, 2.0)  # a square of 1e300 would overflow
    lengths = np.linalg.norm(known.reshape(*known.shape[:-1], 2, 3), axis=-1)
    unit = np.logical_and.reduce(np.abs(lengths - 1) <= _COSINE_TOLERANCE, axis=-1)
    perpendicular = np.abs((known[..., :3] * known[..., 3:]).sum(-1)) <= _COSINE_TOLERANCE
    flaws = np.where(perpendicular, "", "holds two directions that are not perpendicular")
    flaws = np.where(unit, flaws, "holds a direction that is not of length 1")
    return np.where(finite, flaws, "holds a value that is not a finite number")


def _usable_positions(positions_mm: Numbers) -> npt.NDArray[np.bool_]:
    near = np.abs(np.asarray(positions_mm, np.float64)) <= _LARGEST_MM  # NaN is not
    usable: npt.NDArray[np.bool_] = np.logical_and.reduce(near, axis=-1)
    return usable


def _usable_spacings(spacings_mm: Numbers) -> npt.NDArray[np.bool_]:
    spacings = np.asarray(spacings_mm, np.float64)
    usable: npt.NDArray[np.bool_] = np.logical_and.reduce((spacings > 0) & (spacings <= _LARGEST_MM), axis=-1)
    return usable


def checked_positions(positions_mm: Numbers) -> FloatArray:
    """Return (..., 3) patient positions in mm; raises ImageRefused (``bad-geometry``) for anything else."""
    places = np.asarray(positions_mm, np.float64)
    if places.ndim == 0 or places.shape[-1] != 3:
        raise _refused(f"a patient position must be three numbers; found shape {places.shape}")
    bad = places.reshape(-1, 3)[~_usable_positions(places.reshape(-1, 3))]
    if len(bad):
        raise _refused(
            f"a patient position must be three numbers within a kilometre; found {bad[0].tolist()}"
        )
    return places


def _checked_spacings(spacings_mm: Numbers) -> FloatArray:
    spacings = np.asarray(spacings_mm, np.float64)
    if spacings.ndim == 0 or spacings.shape[-1] != 2:
        raise _refused(f"PixelSpacing must be two numbers; found shape {spacings.shape}")
    bad = spacings.reshape(-1, 2)[~_usable_spacings(spacings.reshape(-1, 2))]
    if len(bad):
        raise _refused(f"PixelSpacing must be two positive numbers in mm; found {bad[0].tolist()}")
    return spacings


def _refused(message: str) -> ImageRefused:
    return ImageRefused(Reason.BAD_GEOMETRY, message)
