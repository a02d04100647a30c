"""What a DICOM header says of one frame beside its grey values: functional groups, pixel aspect, kind of value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_FRAME_TYPES = ("MRImageFrameTypeSequence", "MRSpectroscopyFrameTypeSequence", "PETFrameTypeSequence")
# How makers write in ImageType what a classic MR image shows; PS3.3 C.8.3.1.1.1 has the long words.
_COMPONENTS = {
    "P": "PHASE", "PHASE": "PHASE", "PHASE MAP": "PHASE",
    "R": "REAL", "REAL": "REAL", "I": "IMAGINARY", "IMAGINARY": "IMAGINARY",
}  # fmt: skip
_GE = {
    1: "PHASE",
    2: "REAL",
    3: "IMAGINARY",
}  # (0043,xx2F) of GEMS_PARM_01, where ImageType says OTHER for all
_NO_CONTRAST = ("", "NONE", "MIXED")
_MAPS = ("MAP", "SUBTRACT", "ADDITION", "RATIO")
_NO_UNIT = ("", "US", "UNSPECIFIED", "NORMALIZED", "NORMALISED")


def frame_items(header: Dataset, frame: int, sequence: str) -> Iterator[Dataset]:
    """Yield the items of a functional group that hold for a frame: its own, the shared one.

    PS3.3 C.7.6.16: an attribute of a functional group is in one of the two, never in the header as well.
    """
    own: Sequence[Dataset] = header.get("PerFrameFunctionalGroupsSequence") or []
    shared: Sequence[Dataset] = header.get("SharedFunctionalGroupsSequence") or []
    for group in [*own[frame : frame + 1], *shared[:1]]:
        items = group.get(sequence)
        if items:
            yield items[0]


def holder(header: Dataset, frame: int, sequence: str, *keywords: str) -> Dataset:
    """Return the dataset that holds any of `keywords` for a frame: its own group, the shared one, or the header."""
    for item in frame_items(header, frame, sequence):
        if any(keyword in item for keyword in keywords):
            return item
    return header


def pixel_aspect(header: Dataset, frame: int) -> float:
    """Return the height of a pixel divided by its width; 1 where the header says nothing.

    The first of PixelSpacing (of the frame's Pixel Measures before the header's), ImagerPixelSpacing,
    NominalScannedPixelSpacing and PixelAspectRatio that holds two numbers above 0 counts: PS3.3 C.7.6.3.1.7
    wants the ratio only where no spacing is there, and dcmtk has the same order.
    """
    measures = holder(header, frame, "PixelMeasuresSequence", "PixelSpacing")
    properties = holder(header, frame, "FramePixelDataPropertiesSequence", "ImagerPixelSpacing")
    places = (measures, properties, header, header)
    for place, keyword in zip(places, (*_SPACINGS, "PixelAspectRatio"), strict=True):
        pair = _pair(place, keyword)
        if pair is not None:
            return pair[0] / pair[1]
    return 1.0


def value_kind(header: Dataset, frame: int) -> str:
    """Return what the values of an MR frame are, where it is not plain magnitude: ``PHASE``, ``ADC``, ``MM2/S``.

    Frames of two kinds have no grey scale in common. The kind is made of ComplexImageComponent, of the frame
    type's derived contrast and of RescaleType (PS3.3 C.8.13.3.1, C.8.16.1, C.11.1); a classic image says it in
    ImageType.
    """
    kinds: list[str] = []
    group = next((item for name in _FRAME_TYPES for item in frame_items(header, frame, name)), None)
    place = header if group is None else group
    types = _words(place, "FrameType") or _words(header, "ImageType")
    component = _word(place, "ComplexImageComponent")
    if component not in ("", "MAGNITUDE", "MIXED"):
        kinds.append(component)
    for entry in types[2:]:
        kind = _COMPONENTS.get(entry, "")
        if not kind and (entry == "ADC" or entry.endswith(_MAPS)):
            kind = entry
        if kind and kind not in kinds:
            kinds.append(kind)
    if group is not None and len(types) > 3 and types[3] not in (*_NO_CONTRAST, *kinds):
        kinds.append(types[3])  # the derived pixel contrast of an enhanced image: T1, SUBTRACTION, ...
    if not kinds:
        kinds.extend(_component_of_ge(header))
    unit = value_unit(header, frame)
    if unit not in _NO_UNIT:
        kinds.append(unit)
    return " ".join(kinds)[:64]


def value_unit(header: Dataset, frame: int) -> str:
    """Return the unit of modality values, upper case: ``HU``, ``MGML``, ...; ``""`` where nothing is said."""
    tables = header.get("ModalityLUTSequence")
    if tables:
        return _word(tables[0], "ModalityLUTType")
    place = holder(header, frame, "PixelValueTransformationSequence", "RescaleType", "RescaleSlope")
    return _word(place, "RescaleType")


def _component_of_ge(header: Dataset) -> list[str]:
    try:
        code = header.private_block(0x0043, "GEMS_PARM_01")[0x2F].value
    except KeyError:
        return []
    return [_GE[code]] if isinstance(code, int) and code in _GE else []


def _pair(place: Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        found = [float(entry) for entry in place.get(keyword) or ()]
    except (TypeError, ValueError):  # no numbers: as good as absent, for pixels are sound without it
        return None
    if len(found) < 2 or not all(math.isfinite(entry) and entry > 0 for entry in found[:2]):
        return None
    return found[0], found[1]


def _words(place: Dataset, keyword: str) -> list[str]:
    found = place.get(keyword)
    entries = [found] if isinstance(found, str) else list(found or ())
    return [str(entry).strip().upper() for entry in entries]


def _word(place: Dataset, keyword: str) -> str:
    words = _words(place, keyword)
    return words[0][:16] if words else ""
