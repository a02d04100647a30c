"""A drawn lumbar spine: the signal of any point in T1- or T2-weighted MR, with canals and foramina that narrow.

Coordinates are DICOM's: x to the patient's left, y to the back, z to the head, in mm, with the middle of the
third disc at z = 0. Sizes are those of a drawing; no scan of a patient is involved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DISC_Z_MM = (68.0, 34.0, 0.0, -34.0, -68.0)  # L1/L2 to L5/S1
FORAMEN_X_MM = 19.0
RECESS_X_MM = 8.5
Plane = npt.NDArray[np.floating[Any]]

# Signal relative to the brightest tissue, T1 and T2: what is bright and dark in either is the textbook's.
_FAT, _MUSCLE, _MARROW, _DISC, _CSF, _NERVE, _CORTEX = 0, 1, 2, 3, 4, 5, 6
_SIGNAL = {
    "T1": (0.85, 0.36, 0.58, 0.42, 0.16, 0.34, 0.08),
    "T2": (0.72, 0.24, 0.44, 0.46, 0.95, 0.34, 0.06),
}


@dataclass(frozen=True)
class Spine:
    """One person's lumbar spine.

    Parameters
    ----------
    narrowing
        (5 conditions, 5 levels) float64, 0 (wide) to 1 (closed), in the order canal, left foramen, right
        foramen, left recess, right recess.
    size
        Scale of everything.
    lordosis_mm
        How far the curve swings forward.
    degeneration
        (5,) float64, 0 to 1: how dark each disc is on T2, which goes with narrowing without proving it.
    """

    narrowing: npt.NDArray[np.float64]
    size: float
    lordosis_mm: float
    degeneration: npt.NDArray[np.float64]

    def midline_y_mm(self, z_mm: Plane) -> Plane:
        """Return the front-to-back position of the vertebral bodies' middle at a height."""
        y: Plane = -self.lordosis_mm * np.cos(np.clip(z_mm / 75.0, -1.4, 1.4))
        return y

    def canal_point_mm(self, level: int) -> tuple[float, float, float]:
        """Return the middle of the canal at a disc."""
        return 0.0, self._y(level, 25.0), DISC_Z_MM[level] * self.size

    def foramen_point_mm(self, level: int, side: int) -> tuple[float, float, float]:
        """Return the middle of a foramen; side 1 is the patient's left, -1 the right."""
        return side * FORAMEN_X_MM * self.size, self._y(level, 22.0), (DISC_Z_MM[level] + 5.0) * self.size

    def recess_point_mm(self, level: int, side: int) -> tuple[float, float, float]:
        """Return the middle of a subarticular recess."""
        return side * RECESS_X_MM * self.size, self._y(level, 20.5), DISC_Z_MM[level] * self.size

    def _y(self, level: int, behind_mm: float) -> float:
        z_mm = np.array(DISC_Z_MM[level] * self.size)
        return float(self.midline_y_mm(z_mm)) + behind_mm * self.size


def draw_signal(spine: Spine, points_mm: Plane, *, weighting: str) -> Plane:
    """Return the noise-free signal at points.

    Parameters
    ----------
    points_mm
        (height, width, 3) patient coordinates.
    weighting
        ``T1`` or ``T2``.

    Returns
    -------
    (height, width) float32, 0 to 1.
    """
    signal = _SIGNAL[weighting]
    points = points_mm.astype(np.float32)
    y_middle = spine.midline_y_mm(points[..., 2])
    x, y, z = (
        points[..., 0] / spine.size,
        (points[..., 1] - y_middle) / spine.size,
        points[..., 2] / spine.size,
    )
    picture = _soft_tissue(x, y, signal)
    # Everything else lies near the axis: a third of a slice or less.
    near = _window((np.abs(x) < 45.0) & (y > -25.0) & (y < 50.0))
    if near is not None:
        _paint_bones(picture[near], spine, (x[near], y[near], z[near]), weighting)
        _paint_canal(picture[near], spine, x[near], y[near], z[near], signal)
    for level, middle in enumerate(DISC_Z_MM):
        around = _window((np.abs(x) < 32.0) & (y > 5.0) & (y < 40.0) & (np.abs(z - middle) < 24.0))
        if around is not None:
            _paint_foramina(picture[around], spine, level, (x[around], y[around], z[around]), signal)
    return picture


def paint(picture: Plane, cover: Plane, value: float) -> None:
    """Lay a tissue of signal `value` over `picture` where `cover` is 1."""
    picture += cover * (value - picture)


def _soft_tissue(x: Plane, y: Plane, signal: tuple[float, ...]) -> Plane:
    """Belly in front, muscles beside and fat behind, inside a body outline."""
    picture = np.zeros(x.shape, np.float32)
    paint(picture, _inside((x / 150.0) ** 2 + ((y - 5.0) / 95.0) ** 2), signal[_FAT])
    paint(picture, _inside((x / 105.0) ** 2 + ((y + 45.0) / 38.0) ** 2), 0.8 * signal[_MUSCLE])
    for side in (-1.0, 1.0):
        paint(picture, _inside(((x - side * 38.0) / 30.0) ** 2 + ((y - 42.0) / 20.0) ** 2), signal[_MUSCLE])
        paint(picture, _inside(((x - side * 42.0) / 20.0) ** 2 + ((y - 2.0) / 20.0) ** 2), signal[_MUSCLE])
    return picture


def _window(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return the smallest rectangle around the true pixels, or None."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _paint_bones(picture: Plane, spine: Spine, place: tuple[Plane, Plane, Plane], weighting: str) -> None:
    x, y, z = place
    signal = _SIGNAL[weighting]
    body = (x / 23.0) ** 2 + (y / 17.0) ** 2
    near_disc = _disc_profile(z)
    gap = near_disc.max(axis=0)
    paint(picture, _inside(body) * (1.0 - gap), signal[_MARROW])
    paint(picture, _shell(body) * (1.0 - gap), signal[_CORTEX])
    disc = _inside((x / 24.0) ** 2 + (y / 18.0) ** 2)
    for level in range(5):
        dark = 1.0 - (0.75 if weighting == "T2" else 0.1) * float(spine.degeneration[level])
        paint(picture, disc * near_disc[level], signal[_DISC] * dark)


def _disc_profile(z: Plane) -> Plane:
    """(5, ...) 1 inside each disc's height, 0 in the vertebrae."""
    middles = np.array(DISC_Z_MM, np.float32).reshape(-1, *[1] * z.ndim)
    profile: Plane = 1.0 / (1.0 + np.exp(np.minimum((np.abs(z - middles) - 4.8) * 2.2, 40.0)))
    return profile


def _paint_canal(
    picture: Plane, spine: Spine, x: Plane, y: Plane, z: Plane, signal: tuple[float, ...]
) -> None:
    """Paint the sac, narrowed from the front at each disc and from its corners at each recess."""
    depth = np.full(z.shape, 8.0, np.float32)
    corner = np.zeros(z.shape, np.float32)
    for level, middle in enumerate(DISC_Z_MM):
        near = np.exp(-(((z - middle) / 7.5) ** 2))
        depth -= 6.6 * float(spine.narrowing[0, level]) * near
        for side, row in ((1.0, 3), (-1.0, 4)):
            corner = np.maximum(corner, float(spine.narrowing[row, level]) * near * (side * x > 0))
    arch = _inside((x / 19.0) ** 2 + ((y - 26.0) / 13.0) ** 2)
    paint(picture, 0.85 * arch, signal[_CORTEX])
    paint(picture, _inside((x / 6.0) ** 2 + ((y - 36.0) / 3.5) ** 2), signal[_FAT])
    width = np.where(np.abs(x) > 4.0, 11.5 - 6.0 * corner, 11.5)
    sac = _inside((x / width) ** 2 + ((y - 33.5 + depth) / depth) ** 2)
    paint(picture, sac, signal[_CSF])
    for nerve in (-1.0, 0.0, 1.0):
        root = ((x - 3.0 * nerve) / 1.6) ** 2 + ((y - 35.0 + 0.8 * depth) / 1.8) ** 2
        paint(picture, 0.7 * sac * _inside(root), signal[_NERVE])


def _paint_foramina(
    picture: Plane, spine: Spine, level: int, place: tuple[Plane, Plane, Plane], signal: tuple[float, ...]
) -> None:
    """Paint fat around the nerve root in the opening between two pedicles; narrowing squeezes the fat out."""
    x, y, z = place
    for side, row in ((1.0, 1), (-1.0, 2)):
        open_share = 1.0 - 0.8 * float(spine.narrowing[row, level])
        across = np.exp(-(((x - side * FORAMEN_X_MM) / 7.0) ** 4))
        around = ((y - 22.0) / 9.5) ** 2 + ((z - DISC_Z_MM[level] - 3.0) / 14.0) ** 2
        paint(picture, across * _inside(around), signal[_CORTEX])
        fat = ((y - 22.0) / (7.5 * open_share)) ** 2 + (
            (z - DISC_Z_MM[level] - 4.0) / (11.0 * (0.4 + 0.6 * open_share))
        ) ** 2
        paint(picture, across * _inside(fat), signal[_FAT])
        root = ((y - 22.0) / 3.0) ** 2 + ((z - DISC_Z_MM[level] - 7.0) / 3.2) ** 2
        paint(picture, across * _inside(root), signal[_NERVE])


def _inside(q: Plane) -> Plane:
    """1 inside a quadric (q < 1), 0 outside, with a soft edge."""
    inside: Plane = 1.0 / (1.0 + np.exp(np.minimum((q - 1.0) * 9.0, 40.0)))
    return inside


def _shell(q: Plane) -> Plane:
    shell: Plane = 0.8 * np.exp(-(((q - 1.0) / 0.12) ** 2))
    return shell
