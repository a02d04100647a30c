"""Where each frame of an enhanced DICOM file lies: the functional groups of its header.

Enhanced CT, MR and PET, their legacy conversions and breast tomosynthesis keep plane, position and spacing not
beside the pixels but in items of sequences: one shared by all frames, one per frame (DICOM PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from embedstore.headers.dicom_values import Values

SHARED_GROUPS, GROUPS_PER_FRAME, _DIMENSIONS = 0x52009229, 0x52009230, 0x00209222
GROUP_TAGS = (_DIMENSIONS, SHARED_GROUPS, GROUPS_PER_FRAME)
_MEASURES, _POSITION, _ORIENTATION, _CONTENT = 0x00289110, 0x00209113, 0x00209116, 0x00209111
_IN_STACK_POSITION, _IMAGE_POSITION = 0x00209057, 0x00200032
# CT, MR, MR spectroscopy, PET, 3D X-ray and tomosynthesis, US: each names its own sequence for FrameType.
_FRAME_TYPES = (0x00189329, 0x00189226, 0x00189227, 0x00189751, 0x00189504, 0x00189806)


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    r"""What the functional groups say of one frame; None where they are silent.

    Parameters
    ----------
    orientation, position_mm, spacing_mm, thickness_mm
        ImageOrientationPatient (6), ImagePositionPatient (3), PixelSpacing (rows, columns), SliceThickness.
    stack
        Number of the frame's StackID among those of the file, from 0 in the order of the ids.
    place
        InStackPositionNumber, or the index of the dimension that counts positions; from 1.
    image_type
        The first three values of FrameType, as DICOM writes them (``ORIGINAL\PRIMARY\VOLUME``).
    """

    orientation: tuple[float, ...] | None = None
    position_mm: tuple[float, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    thickness_mm: float | None = None
    stack: int | None = None
    place: int | None = None
    image_type: str | None = None


def frame_geometry(groups: Dataset, frames: int) -> tuple[FrameGeometry, ...] | None:
    """Read the functional groups of a file.

    Parameters
    ----------
    groups
        A data set with the elements of `GROUP_TAGS`.
    frames
        NumberOfFrames.

    Returns
    -------
    One per frame, or None where the file has no functional groups.

    Raises
    ------
    Exception
        Anything, from a hostile header.
    """
    values = Values(groups)
    shared, own = values.items(SHARED_GROUPS), values.items(GROUPS_PER_FRAME)
    if not len(shared) and not len(own):
        return None
    for_all = [Values(item) for item in shared[:1]]
    dimension = _position_dimension(values.items(_DIMENSIONS))
    found = [
        _read_frame([*(Values(item) for item in own[frame : frame + 1]), *for_all], dimension)
        for frame in range(frames)
    ]
    names = sorted({stack for _, stack in found if stack is not None}, key=lambda name: (len(name), name))
    number = {name: index for index, name in enumerate(names)}
    return tuple(
        FrameGeometry(*known, stack=None if stack is None else number[stack], place=place, image_type=kind)
        for (known, place, kind), stack in found
    )


_Known = tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[float, ...] | None, float | None]


def _read_frame(
    groups: Sequence[Values], dimension: int | None
) -> tuple[tuple[_Known, int | None, str | None], str | None]:
    """Return orientation, position, spacing and thickness, the place in the stack, the type, and the StackID."""
    orientation, position = _macro(groups, _ORIENTATION), _macro(groups, _POSITION)
    measures, content = _macro(groups, _MEASURES), _macro(groups, _CONTENT)
    types = (_macro(groups, tag) for tag in _FRAME_TYPES)
    frame_type = next((item.codes(0x00089007, 3) for item in types if item is not None), ())
    known = (
        orientation.decimals(0x00200037, 6) if orientation else None,
        position.decimals(_IMAGE_POSITION, 3) if position else None,
        measures.decimals(0x00280030, 2) if measures else None,
        measures.decimal(0x00180050) if measures else None,
    )
    place = stack = None
    if content is not None:
        stack = content.text(0x00209056)
        places = content.longs(_IN_STACK_POSITION)
        indices = content.longs(0x00209157)
        if places:
            place = places[0]
        elif dimension is not None and dimension < len(indices):
            place = indices[dimension]
    return (known, place, "\\".join(frame_type) or None), stack


def _macro(groups: Sequence[Values], tag: int) -> Values | None:
    """Return a macro's item: the frame's own before the shared one."""
    return next((item for group in groups if (item := group.item(tag)) is not None), None)


def _position_dimension(dimensions: Sequence[Dataset]) -> int | None:
    """Return which of DimensionIndexValues counts positions, by the attribute that each points to."""
    for number, item in enumerate(dimensions):
        pointer = Values(item).shorts(0x00209165)
        if len(pointer) == 2 and pointer[0] << 16 | pointer[1] in (_IN_STACK_POSITION, _IMAGE_POSITION):
            return number
    return None
