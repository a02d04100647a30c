"""Which slices of a series show a point: the nearest, its neighbours in the stack, and where in each the point lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedstore.geometry import (
    FloatArray,
    patient_mm_to_pixel,
    positions_along_mm,
    slice_normal,
    stack_axis,
)
from embedstore.lumbar.crop_rule import STEP_WITHIN_MM, WITHIN_MM
from embedstore.slices.planes import SlicePlanes

_SAME_PLACE_MM = 0.05
# A step of half as much again as usual in its stack leads into the next slab.
_USUAL_STEPS = 1.5
NO_SLICE, BESIDE = "no slice near enough", "beside the picture"


@dataclass(frozen=True, slots=True)
class ShownPoint:
    """A slice that shows a point.

    Parameters
    ----------
    row
        Number of the slice in its series.
    offset
        0 for the nearest slice, 1, 2, ... for its neighbours towards the patient's left, back or head (the sign of
        `embedstore.geometry.stack_axis`), -1, -2, ... for those on the other side.
    distance_mm
        Of the slice's plane from the point, 0 or more.
    column_px, row_px
        The point in the slice: 0 is the centre of the first pixel.
    """

    row: int
    offset: int
    distance_mm: float
    column_px: float
    row_px: float


@dataclass(frozen=True, eq=False)
class SeriesSlices:
    """The slices of one series, all of usable geometry.

    Parameters
    ----------
    planes
        Where they lie.
    stacks
        (n,) int64 number of the stack that each belongs to.
    """

    planes: SlicePlanes
    stacks: npt.NDArray[np.int64]

    def show(
        self, xyz_mm: FloatArray, *, neighbours: int, mirrored: Sequence[bool]
    ) -> list[list[ShownPoint] | str]:
        """Return for each point the slices that show it: the nearest of all stacks, and its neighbours in its own.

        Parameters
        ----------
        xyz_mm
            (m, 3) patient millimetres.
        neighbours
            How many on each side. A step of more than 10 mm, or of more than 1.5 times the stack's median step, is not
            made: there the next slab begins.
        mirrored
            Of two slices that are equally near, take the one on the side of the axis and not the other: a mirrored
            patient then has the same.

        Returns
        -------
        A list by offset; or why there is none: no slice within 5 mm of the point (`NO_SLICE`), or all such slices show
        other places (`BESIDE`).
        """
        planes = self.planes
        pixels, apart_mm = patient_mm_to_pixel(
            xyz_mm[:, None], planes.orientations, planes.positions_mm, planes.spacings_mm
        )
        # The first pixel reaches half a pixel beyond its centre.
        inside = np.logical_and.reduce(
            (pixels >= -0.5) & (pixels <= planes.shapes_px[:, ::-1] - 0.5), axis=-1
        )
        return [
            self._show(*projected, neighbours=neighbours, mirrored=across)
            for *projected, across in zip(pixels, apart_mm, inside, mirrored, strict=True)
        ]

    def _show(
        self,
        pixels: FloatArray,
        apart_mm: FloatArray,
        inside: npt.NDArray[np.bool_],
        *,
        neighbours: int,
        mirrored: bool,
    ) -> list[ShownPoint] | str:
        near = np.abs(apart_mm) <= WITHIN_MM
        candidates = np.flatnonzero(near & inside)
        if not len(candidates):
            return BESIDE if near.any() else NO_SLICE
        # Where the slices lie from the point, along the axis or in the mirror against it.
        side = self._axis_signs[candidates] * apart_mm[candidates] * (1 if mirrored else -1)
        nearest = int(candidates[np.lexsort((side, np.abs(apart_mm[candidates]).round(6)))[0]])
        return [
            ShownPoint(row, offset, abs(float(apart_mm[row])), *map(float, pixels[row]))
            for offset, row in self._around(nearest, neighbours)
            if inside[row]
        ]

    @cached_property
    def _axis_signs(self) -> FloatArray:
        """(n,) 1 where the normal of a slice points along its stack's axis, -1 where it points against it."""
        signs = np.ones(len(self.stacks))
        for number in np.unique(self.stacks):
            rows = self.stacks == number
            orientations = self.planes.orientations[rows]
            signs[rows] = np.where(slice_normal(orientations) @ stack_axis(orientations) < 0, -1.0, 1.0)
        return signs

    @cached_property
    def _lines(self) -> dict[int, _Line]:
        """The slices of each stack in a line."""
        return {int(number): self._line(int(number)) for number in np.unique(self.stacks)}

    def _line(self, number: int) -> _Line:
        rows = np.flatnonzero(self.stacks == number)
        axis = stack_axis(self.planes.orientations[rows])
        along_mm = positions_along_mm(axis, self.planes.positions_mm[rows])
        order = np.argsort(along_mm, kind="stable")
        rows, along_mm = rows[order], along_mm[order]
        # Slices at one place are shown once.
        starts = np.flatnonzero(np.append(True, np.diff(along_mm) > _SAME_PLACE_MM))
        steps = np.diff(along_mm[starts])
        largest = min(_USUAL_STEPS * float(np.median(steps)), STEP_WITHIN_MM) if len(steps) else 0.0
        place = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(rows))))
        return _Line(
            rows[starts].tolist(),
            (steps <= largest).tolist(),
            dict(zip(rows.tolist(), place.tolist(), strict=True)),
        )

    def _around(self, nearest: int, neighbours: int) -> Iterator[tuple[int, int]]:
        """Yield offset and row of the nearest slice and those around it, in order."""
        line = self._lines[int(self.stacks[nearest])]
        place = line.place[nearest]
        first = last = place
        while last < min(place + neighbours, len(line.joined)) and line.joined[last]:
            last += 1
        while first > max(place - neighbours, 0) and line.joined[first - 1]:
            first -= 1
        for at in range(first, last + 1):
            yield at - place, nearest if at == place else line.rows[at]


@dataclass(frozen=True)
class _Line:
    """The places of a stack along its axis.

    Parameters
    ----------
    rows
        The slice that is shown of each place.
    joined
        Whether the next place is a neighbour; one entry less.
    place
        Slice -> number of its place.
    """

    rows: list[int]
    joined: list[bool]
    place: dict[int, int]
