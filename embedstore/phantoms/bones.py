"""Where the bones of the phantom radiographs lie: seven body parts, as straight bones in centimetres.

The proportions are those of a drawing, not of a patient. A frame's origin is its middle, x runs to the
right and y downwards, as in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

ANATOMIES = ("XR_WRIST", "XR_SHOULDER", "XR_HAND", "XR_FINGER", "XR_ELBOW", "XR_FOREARM", "XR_HUMERUS")
VIEWS = ("frontal", "lateral", "oblique", "frontal again")


@dataclass(frozen=True)
class Bone:
    """One bone: a straight axis with a radius that flares towards the ends.

    Parameters
    ----------
    start_cm, end_cm
        Ends of the axis, (x, y).
    radii_cm
        Radius at the start, at the middle, at the end.
    density
        Attenuation relative to a hand bone.
    main
        Whether findings may lie in it.
    flesh_cm
        Thickness of the soft tissue around it.
    """

    start_cm: tuple[float, float]
    end_cm: tuple[float, float]
    radii_cm: tuple[float, float, float]
    density: float = 1.0
    main: bool = False
    flesh_cm: float = 1.0

    @property
    def length_cm(self) -> float:
        """Length of the axis."""
        return math.dist(self.start_cm, self.end_cm)


@dataclass(frozen=True)
class Anatomy:
    """The bones of one body part in one view, and the width and height of the frame around them."""

    bones: tuple[Bone, ...]
    field_cm: tuple[float, float]


def draw_anatomy(name: str, *, view: int, build: np.random.Generator) -> Anatomy:
    """Lay out one body part.

    Parameters
    ----------
    name
        One of `ANATOMIES`.
    view
        Index into `VIEWS`.
    build
        The person: two calls with equal generators give the same bones, whatever the view.
    """
    anatomy = _LAYOUTS[name](view, build)
    size = 1.0 + 0.07 * build.standard_normal()
    width = 1.0 + 0.08 * build.standard_normal()
    squeeze = {"lateral": 0.62, "oblique": 0.85}.get(VIEWS[view], 1.0)
    if name == "XR_ELBOW":
        squeeze = max(squeeze, 0.9)  # its lateral view is bent instead
    bones = tuple(_reshape(bone, size, width, squeeze, build) for bone in anatomy.bones)
    return replace(anatomy, bones=bones)


def _reshape(bone: Bone, size: float, width: float, squeeze: float, build: np.random.Generator) -> Bone:
    shift = build.normal(0.0, 0.008, 4) * bone.length_cm
    (x0, y0), (x1, y1) = bone.start_cm, bone.end_cm
    return replace(
        bone,
        start_cm=(float(size * squeeze * x0 + shift[0]), float(size * y0 + shift[1])),
        end_cm=(float(size * squeeze * x1 + shift[2]), float(size * y1 + shift[3])),
        radii_cm=(
            size * width * bone.radii_cm[0],
            size * width * bone.radii_cm[1],
            size * width * bone.radii_cm[2],
        ),
    )


def _toward(start: tuple[float, float], degrees: float, length: float) -> tuple[float, float]:
    """Return the point at `length` from `start`; 0 degrees points up, positive to the right."""
    angle = math.radians(degrees)
    return start[0] + length * math.sin(angle), start[1] - length * math.cos(angle)


def _ray(
    start: tuple[float, float], degrees: float, lengths: tuple[float, ...], radius: float, *, flesh_cm: float
) -> list[Bone]:
    """Return a chain of bones with joint spaces, such as a metacarpal and its phalanges."""
    bones = []
    for order, length in enumerate(lengths):
        end = _toward(start, degrees, length)
        thick = radius * (1.0 - 0.16 * order)
        bones.append(
            Bone(start, end, (1.35 * thick, 0.78 * thick, 1.25 * thick), 0.9, main=True, flesh_cm=flesh_cm)
        )
        start = _toward(start, degrees, length + 0.22 + 0.6 * thick)
    return bones


def _carpals(centre: tuple[float, float], scale: float) -> list[Bone]:
    bones = []
    for row, count in enumerate((4, 4)):
        for column in range(count):
            x = centre[0] + scale * (column - 1.5) * 1.12
            y = centre[1] + scale * (row * 1.15 - 0.55 + 0.13 * (column - 1.5) ** 2)
            radius = scale * (0.58 + 0.07 * ((row + column) % 2))
            bones.append(
                Bone((x - 0.2, y - 0.1), (x + 0.2, y + 0.12), (radius, radius, radius), 0.75, flesh_cm=1.1)
            )
    return bones


def _hand(view: int, build: np.random.Generator) -> Anatomy:
    spread = (1.0, 0.45, 0.75, 1.0)[view] * (1.0 + 0.15 * build.standard_normal())
    bones = _carpals((0.0, 5.6), 0.95)
    lengths = ((6.2, 3.9, 2.4, 1.7), (6.0, 4.3, 2.8, 1.8), (5.5, 4.0, 2.6, 1.8), (5.0, 3.2, 1.9, 1.6))
    for finger, chain in enumerate(lengths):
        x = (finger - 1.5) * 1.35
        base = (x, 4.0 + 0.25 * abs(finger - 1))
        bones += _ray(base, spread * (finger - 1.4) * 9.0, chain, 0.5, flesh_cm=0.75)
    bones += _ray((-2.6, 4.6), -38.0 * spread, (4.0, 3.0, 2.2), 0.56, flesh_cm=0.8)
    bones.append(Bone((-1.1, 8.0), (-1.5, 14.5), (1.45, 0.85, 0.85), main=True, flesh_cm=1.4))
    bones.append(Bone((1.5, 8.2), (1.3, 14.5), (0.8, 0.6, 0.7), main=True, flesh_cm=1.4))
    return Anatomy(tuple(bones), (16.5, 24.0))


def _finger(view: int, build: np.random.Generator) -> Anatomy:
    lean = 4.0 * build.standard_normal()
    bones = _ray((0.2, 8.4), lean, (5.0, 4.4, 2.9, 2.0), 0.62, flesh_cm=0.6)
    for side in (-1, 1):
        chain = (5.0, 3.6, 2.3, 1.6)
        angle = lean + side * (9.0 if view != 1 else 24.0)
        bones += _ray((side * 2.3, 8.8), angle, chain, 0.55, flesh_cm=0.6)
    return Anatomy(tuple(bones), (9.5, 15.5))


def _wrist(view: int, build: np.random.Generator) -> Anatomy:
    tilt = 3.0 * build.standard_normal()
    bones = _carpals((0.0, 0.2), 1.05)
    for finger in range(5):
        x = (finger - 2.0) * 1.25
        base = (x, -2.0 + 0.2 * abs(finger - 2))
        bones += _ray(base, tilt + (finger - 2.0) * 7.0, (5.6, 3.0), 0.56, flesh_cm=0.8)
    bones.append(Bone((-1.0, 2.7), (-1.35, 11.5), (1.7, 0.8, 0.85), main=True, flesh_cm=1.3))
    overlap = 0.6 if view == 1 else 1.65
    bones.append(Bone((overlap, 2.9), (overlap - 0.1, 11.5), (0.9, 0.6, 0.75), main=True, flesh_cm=1.3))
    return Anatomy(tuple(bones), (13.0, 18.5))


def _forearm(view: int, build: np.random.Generator) -> Anatomy:
    bow = 0.25 * build.standard_normal()
    bones = [
        Bone((-1.3, 10.6), (-0.9 + bow, -9.4), (1.55, 0.78, 0.95), main=True, flesh_cm=2.0),
        Bone((1.3, 10.2), (0.9 + bow, -10.6), (0.8, 0.72, 1.35), main=True, flesh_cm=2.0),
        Bone((0.1, -11.6), (0.1, -16.0), (2.3, 1.2, 1.1), flesh_cm=2.2),
    ]
    bones += _carpals((0.0, 12.8), 0.95)
    for finger in range(5):
        bones.append(Bone(((finger - 2.0) * 1.2, 14.6), ((finger - 2.0) * 1.5, 18.0), (0.6, 0.4, 0.5), 0.9))
    return Anatomy(tuple(bones), (12.5 if view else 13.5, 29.0))


def _elbow(view: int, build: np.random.Generator) -> Anatomy:
    bend = (6.0, 88.0, 30.0, 4.0)[view] + 5.0 * build.standard_normal()
    joint = (0.0, 1.0)
    ulna_start, radius_start = _toward(joint, 180.0 - bend, 0.3), _toward((-1.4, 1.4), 180.0 - bend, 0.7)
    ulna_end, radius_end = _toward(ulna_start, 180.0 - bend, 10.5), _toward(radius_start, 176.0 - bend, 10.0)
    bones = [
        Bone((0.0, -11.0), (0.0, 0.0), (1.15, 1.1, 2.4), main=True, flesh_cm=2.6),
        Bone(ulna_start, ulna_end, (1.45, 0.85, 0.8), main=True, flesh_cm=2.2),
        Bone(radius_start, radius_end, (1.15, 0.75, 0.9), main=True, flesh_cm=2.2),
    ]
    return Anatomy(tuple(bones), (17.0 if view == 1 else 13.0, 19.0))


def _ribs(x: float, count: int) -> list[Bone]:
    return [
        Bone((x, -5.0 + 2.7 * rib), (x + 5.5, -6.6 + 2.7 * rib), (0.45, 0.42, 0.45), 0.45, flesh_cm=2.5)
        for rib in range(count)
    ]


def _humerus(view: int, build: np.random.Generator) -> Anatomy:
    lean = 0.6 * build.standard_normal()
    bones = [
        Bone((lean, -11.2), (0.0, 12.0), (2.1, 1.15, 2.3), main=True, flesh_cm=3.0),
        Bone((0.5 + lean, -12.0), (0.8 + lean, -11.4), (2.2, 2.2, 2.2), 0.8, flesh_cm=2.6),
        Bone((0.5, 13.6), (0.9, 18.0), (1.4, 0.9, 0.9), flesh_cm=2.0),
        Bone((-0.9, 13.8), (-1.2, 18.0), (1.1, 0.8, 0.8), flesh_cm=2.0),
        Bone((3.6, -12.5), (5.4, -7.0), (1.1, 0.7, 0.8), 0.5, flesh_cm=2.5),
    ]
    return Anatomy(tuple(bones), (12.0 if view == 1 else 15.0, 31.0))


def _shoulder(view: int, build: np.random.Generator) -> Anatomy:
    abduction = (12.0, 30.0, 20.0, 8.0)[view] + 6.0 * build.standard_normal()
    head = (-3.2, -2.2)
    bones = [
        Bone(
            _toward(head, 180.0 + abduction, 0.6),
            _toward(head, 180.0 + abduction, 13.0),
            (2.2, 1.15, 1.1),
            main=True,
            flesh_cm=3.0,
        ),
        Bone(head, (head[0] + 0.4, head[1] + 0.4), (2.35, 2.35, 2.35), 0.7, main=True, flesh_cm=2.4),
        Bone((-1.6, -5.6), (9.5, -6.8), (0.95, 0.65, 0.85), 0.8, main=True, flesh_cm=1.8),
        Bone((-3.9, -5.1), (2.8, -3.4), (0.75, 0.6, 0.5), 0.6, flesh_cm=1.8),
        Bone((0.2, -1.9), (0.6, 0.6), (1.0, 0.95, 0.9), 0.6, flesh_cm=2.0),
        Bone((1.2, -1.6), (3.6, 8.0), (1.9, 1.3, 0.5), 0.35, flesh_cm=2.5),
        *_ribs(4.6, 5),
    ]
    return Anatomy(tuple(bones), (20.0, 20.0))


_LAYOUTS: dict[str, Callable[[int, np.random.Generator], Anatomy]] = {
    "XR_ELBOW": _elbow,
    "XR_FINGER": _finger,
    "XR_FOREARM": _forearm,
    "XR_HAND": _hand,
    "XR_HUMERUS": _humerus,
    "XR_SHOULDER": _shoulder,
    "XR_WRIST": _wrist,
}
