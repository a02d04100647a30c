"""Phantom radiographs from bones and findings: attenuation along each ray, then film, noise and marker.

A bone is a hollow cylinder, so its cortex is bright where the ray runs along it, as in a radiograph.
Everything is computed from distances to bone axes; no picture of a patient is involved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from embedstore.phantoms.bones import Anatomy, Bone

LONGEST_SIDE_PX = 512  # MURA's PNGs: longest side 512
Plane = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Finding:
    """What is abnormal in a study.

    Parameters
    ----------
    kind
        ``fracture``, ``plate``, ``nail``, ``wires`` or ``lesion``.
    bone
        Index of the bone.
    place
        Where along the axis, 0 to 1.
    severity
        0 (cannot be seen) to 1.
    slope
        Tilt of a fracture or wire against the bone's cross-section; for a lesion, its offset from the axis.
    """

    kind: str
    bone: int
    place: float
    severity: float
    slope: float


@dataclass(frozen=True)
class Film:
    """How one radiograph was taken.

    Parameters
    ----------
    size_px
        Width and height.
    px_per_cm
        Scale of the picture.
    rotation_deg
        Turn of the whole frame; its corners outside stay black.
    centre_px
        Where the middle of the anatomy lies.
    mirror
        -1 for a left limb, 1 for a right one.
    exposure
        Multiplies attenuation.
    noise
        Standard deviation of the film's noise in grey levels.
    growth_plates
        Whether the person still grows: a dark line near the bone ends that is no fracture.
    marker
        ``L`` or ``R``, burned in.
    inverted
        Whether bone is dark.
    porosity
        0 to 1: how coarse the trabeculae are, as in a limb that was not used for weeks.
    """

    size_px: tuple[int, int]
    px_per_cm: float
    rotation_deg: float
    centre_px: tuple[float, float]
    mirror: int
    exposure: float
    noise: float
    growth_plates: bool
    marker: str
    inverted: bool
    porosity: float


def draw_radiograph(
    anatomy: Anatomy, finding: Finding | None, film: Film, noise: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Draw one radiograph.

    Returns
    -------
    (height, width) uint8.
    """
    width, height = film.size_px
    grain = noise.standard_normal((height, width), dtype=np.float32)
    texture = _smooth(grain)
    flesh = np.zeros((height, width), np.float32)
    bone_layer = np.zeros((height, width), np.float32)
    for index, bone in enumerate(anatomy.bones):
        here = finding if finding is not None and finding.bone == index else None
        _add_bone(bone_layer, flesh, _Placed(bone, film), here, film=film, texture=texture)
    tilt = noise.normal(0.0, 0.12, 2).astype(np.float32)
    lamp = (
        np.linspace(-tilt[0], tilt[0], width, dtype=np.float32)[None, :]
        + np.linspace(-tilt[1], tilt[1], height, dtype=np.float32)[:, None]
    )
    attenuation = film.exposure * (0.4 * flesh + bone_layer) + 0.05
    grey = 246.0 * (1.0 - np.exp(-attenuation * (1.0 + lamp)))
    grey += film.noise * (0.6 * grain + 1.6 * texture)
    levels = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return _finish(levels, film)


class _Placed:
    """A bone in pixels: start, direction, length and radii."""

    def __init__(self, bone: Bone, film: Film) -> None:
        (x0, y0), (x1, y1) = (_to_px(point, film) for point in (bone.start_cm, bone.end_cm))
        self.bone = bone
        self.x0, self.y0, self.x1, self.y1 = x0, y0, x1, y1
        self.length = max(math.hypot(x1 - x0, y1 - y0), 1.0)
        self.ux, self.uy = (x1 - x0) / self.length, (y1 - y0) / self.length
        self.r0, self.rm, self.r1 = (radius * film.px_per_cm for radius in bone.radii_cm)

    def window(self, margin: float, shape: tuple[int, int]) -> tuple[slice, slice] | None:
        """Rows and columns within `margin` pixels of the axis, or None outside the frame."""
        left, right = min(self.x0, self.x1) - margin, max(self.x0, self.x1) + margin
        top, bottom = min(self.y0, self.y1) - margin, max(self.y0, self.y1) + margin
        rows = slice(max(int(top), 0), min(int(bottom) + 2, shape[0]))
        columns = slice(max(int(left), 0), min(int(right) + 2, shape[1]))
        return None if rows.start >= rows.stop or columns.start >= columns.stop else (rows, columns)

    def coordinates(self, window: tuple[slice, slice]) -> tuple[Plane, Plane]:
        """Distance along the axis and across it, in pixels, for each pixel of the window."""
        rows, columns = window
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(self.y0)
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(self.x0)
        return x * self.ux + y * self.uy, y * self.ux - x * self.uy


def _to_px(point_cm: tuple[float, float], film: Film) -> tuple[float, float]:
    angle = math.radians(film.rotation_deg)
    x, y = film.mirror * point_cm[0] * film.px_per_cm, point_cm[1] * film.px_per_cm
    return (
        film.centre_px[0] + x * math.cos(angle) - y * math.sin(angle),
        film.centre_px[1] + x * math.sin(angle) + y * math.cos(angle),
    )


def _add_bone(
    layer: Plane, flesh: Plane, placed: _Placed, finding: Finding | None, *, film: Film, texture: Plane
) -> None:
    widest = max(placed.r0, placed.rm, placed.r1)
    around = widest + placed.bone.flesh_cm * film.px_per_cm
    window = placed.window(around, layer.shape)
    if window is None:
        return
    along, across = placed.coordinates(window)
    beyond = np.maximum(np.maximum(-along, along - placed.length), 0.0)
    # A chord relative to the limb's own thickness: the technician exposes a shoulder longer than a finger.
    chord = np.sqrt(np.maximum(1.0 - (across**2 + beyond**2) / around**2, 0.0))
    np.maximum(flesh[window], chord, out=flesh[window])
    window = placed.window(1.3 * widest, layer.shape)
    if window is None:
        return
    along, across = placed.coordinates(window)
    gap: Plane = np.ones(1, np.float32)
    if finding is not None and finding.kind == "fracture":
        across, gap = _break(along, across, placed, finding, texture[window])
    thickness: Plane = _hollow_cylinder(along, across, placed, film.porosity, texture[window]) * gap
    if film.growth_plates and placed.bone.main:
        thickness = thickness * _growth_plates(along, across, placed)
    if finding is not None:
        thickness = _with_finding(thickness, along, across, placed, finding)
    layer[window] += thickness * np.float32(placed.bone.density)


def _hollow_cylinder(along: Plane, across: Plane, placed: _Placed, porosity: float, texture: Plane) -> Plane:
    """Path of the ray through cortex and spongy bone, weighted by density."""
    t = np.clip(along / placed.length, 0.0, 1.0)
    near_start, near_end = (1.0 - t) ** 4, t**4
    radius = placed.rm + (placed.r0 - placed.rm) * near_start + (placed.r1 - placed.rm) * near_end
    beyond = np.maximum(np.maximum(-along, along - placed.length), 0.0)
    q = (across**2 + 2.6 * beyond**2) / radius**2
    marrow = 0.66 + 0.1 * porosity + (0.28 - 0.1 * porosity) * np.maximum(near_start, near_end)
    outer = np.sqrt(np.maximum(1.0 - q, 0.0))
    inner = np.sqrt(np.maximum(marrow**2 - q, 0.0))
    spongy = 0.42 + (0.1 + 0.95 * porosity) * texture
    path: Plane = (1.25 * (outer - inner) + inner * spongy).astype(np.float32)
    return path


def _break(
    along: Plane, across: Plane, placed: _Placed, finding: Finding, texture: Plane
) -> tuple[Plane, Plane]:
    """Shift the far fragment sideways and darken the line between the fragments."""
    jagged = 0.18 * placed.rm * np.sin(across * (5.0 / placed.rm) + 9.0 * finding.place)
    line = along - finding.place * placed.length - finding.slope * across - jagged
    displacement = np.float32(max(finding.severity - 0.35, 0.0) * 0.75 * placed.rm)
    shifted = across - displacement * (line > 0)
    breadth = 1.2 + 0.10 * placed.rm * finding.severity
    gap = 1.0 - min(0.15 + 0.7 * finding.severity, 0.8) * np.exp(-((line / breadth) ** 2))
    rough = 0.05 * finding.severity * texture * (np.abs(line) < 4 * breadth)
    return shifted, (gap + rough).astype(np.float32)


def _growth_plates(along: Plane, across: Plane, placed: _Placed) -> Plane:
    wave = 0.12 * placed.rm * np.cos(across * (2.2 / placed.rm))
    lower, upper = along - 0.07 * placed.length + wave, along - 0.93 * placed.length - wave
    near = np.minimum(np.abs(lower), np.abs(upper))
    dark: Plane = (1.0 - 0.5 * np.exp(-((near / (1.0 + 0.07 * placed.rm)) ** 2))).astype(np.float32)
    return dark


def _with_finding(thickness: Plane, along: Plane, across: Plane, placed: _Placed, finding: Finding) -> Plane:
    u = along - finding.place * placed.length
    r = placed.rm
    if finding.kind == "plate":
        half = (1.6 + 1.6 * finding.severity) * r
        plate = _soft_edge(half - np.abs(u)) * _soft_edge(0.24 * r - np.abs(across - 0.75 * r))
        step = half / 2.6
        screw = (np.abs(u - step * np.rint(u / step)) < 0.11 * r) & (np.abs(u) < 0.95 * half)
        screw &= np.abs(across) < 1.1 * r
        metal: Plane = 1.7 * plate + 1.3 * screw
        return thickness + metal
    if finding.kind == "nail":
        from_middle = np.abs(along - placed.length / 2)
        nail = _soft_edge(0.34 * r - np.abs(across)) * _soft_edge(0.42 * placed.length - from_middle)
        return thickness + 1.5 * nail
    if finding.kind == "wires":
        wires = np.zeros_like(thickness)
        for sign in (-1.0, 1.0):
            oblique = np.abs(across - sign * (0.25 + 0.3 * abs(finding.slope)) * u)
            wires = np.maximum(wires, _soft_edge(0.9 + 0.03 * r - oblique) * _soft_edge(2.2 * r - np.abs(u)))
        return thickness + (0.5 + 0.9 * finding.severity) * wires
    if finding.kind == "lesion":
        distance = (u**2 + (across - 0.4 * r * finding.slope) ** 2) / (0.65 * r) ** 2
        return thickness * (1.0 - 0.75 * finding.severity * np.exp(-(distance**2)))
    return thickness


def _soft_edge(inside_px: Plane) -> Plane:
    """0 outside, 1 inside, one pixel of transition."""
    edge: Plane = np.clip(inside_px + 0.5, 0.0, 1.0)
    return edge


def _smooth(grain: Plane) -> Plane:
    """Average 3 x 3 neighbours twice; the result has a standard deviation near 0.25."""
    for _ in range(2):
        grain = (grain + np.roll(grain, 1, 0) + np.roll(grain, -1, 0)) / 3.0
        grain = (grain + np.roll(grain, 1, 1) + np.roll(grain, -1, 1)) / 3.0
    return grain


def _finish(levels: npt.NDArray[np.uint8], film: Film) -> npt.NDArray[np.uint8]:
    """Burn in the marker, blacken what the collimator covers, invert."""
    image = Image.fromarray(levels)
    width, height = film.size_px
    _draw_marker(image, film.marker)
    if abs(film.rotation_deg) >= 5.0 and film.rotation_deg % 90:
        mask = Image.new("L", (width, height), 0)
        angle = math.radians(film.rotation_deg)
        half_w, half_h = 0.47 * width, 0.47 * height
        corners = [(sx * half_w, sy * half_h) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        cosine, sine = math.cos(angle), math.sin(angle)
        turned = [(width / 2 + x * cosine - y * sine, height / 2 + x * sine + y * cosine) for x, y in corners]
        ImageDraw.Draw(mask).polygon(turned, fill=255)
        image = Image.composite(image, Image.new("L", (width, height), 0), mask)
    finished = np.asarray(image)
    return 255 - finished if film.inverted else finished


def _draw_marker(image: Image.Image, letter: str) -> None:
    """Draw L or R from strokes, so that no font decides about the bytes."""
    pen = ImageDraw.Draw(image)
    x, y = (18, 20) if letter == "L" else (image.width - 42, 20)
    pen.line([(x, y), (x, y + 32)], fill=235, width=5)
    if letter == "L":
        pen.line([(x, y + 30), (x + 18, y + 30)], fill=235, width=5)
        return
    pen.arc([(x - 10, y - 2), (x + 20, y + 18)], -95, 95, fill=235, width=5)
    pen.line([(x + 4, y + 16), (x + 20, y + 32)], fill=235, width=5)
