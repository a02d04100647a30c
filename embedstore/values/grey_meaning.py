"""DICOM header -> what grey values mean: LUTs, windows, padding, also from functional groups per frame.

What only says how to show an image (window, VOI LUT, presentation shape) never refuses it: where it means
nothing it is left out, and a note says so. What the values themselves need (modality LUT) must be sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from embedstore.errors import ImageRefused, Note, Reason
from embedstore.values.frame_attributes import frame_items, holder, value_unit
from embedstore.values.lookup_tables import Range, encoding_of, lookup_table
from embedstore.values.stored_bits import StoredBits
from embedstore.values.window import WINDOW_FUNCTIONS, GreyMeaning, LookupTable, Rescale, Window

_NO_NOTES: frozenset[Note] = frozenset()
_XA = (
    "1.2.840.10008.5.1.4.1.1.12.1",
    "1.2.840.10008.5.1.4.1.1.12.2",
)  # X-Ray Angiographic, Radiofluoroscopic
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture and its four multi-frame kinds, 7.1 to 7.4
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_UNSPECIFIED = "US"  # RescaleType of values without a stated unit, PS3.3 C.11.1.1.2
_CT_MAPS = ("MAT_SPECIFIC", "MAT_FRACTIONAL", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY")  # PS3.3 C.8.15.2.1
_PADDINGS = {
    "PixelData": ("PixelPaddingValue", "PixelPaddingRangeLimit"),
    "FloatPixelData": ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    "DoubleFloatPixelData": ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
}


def grey_meaning(header: Dataset, frame: int, *, pixel_keyword: str = "PixelData") -> GreyMeaning:
    """Return what the stored values of one grey frame mean.

    Parameters
    ----------
    header
        All elements before the pixels.
    frame
        Number of the frame, from 0.
    pixel_keyword
        Which element holds the pixels; each has a padding value of its own.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if a modality value is not a number or a modality table is shorter than it says.
    """
    inputs = stored_range(header)
    modality, notes = _modality_transform(header, frame, inputs)
    try:
        voi, voi_notes = _voi_transform(header, frame, _outputs(modality, inputs))
    except (ImageRefused, ValueError, TypeError, AttributeError, LookupError):  # sound pixels, a broken VOI
        voi, voi_notes = None, frozenset({Note.WINDOW_DROPPED})
    inverted, contradiction = _inverted(header)
    return GreyMeaning(
        modality=modality,
        voi=voi,
        inverted=inverted,
        padding=_padding(header, pixel_keyword),
        unit=_unit(header, frame, modality, notes),
        notes=notes | contradiction,
        voi_notes=voi_notes,
    )


def _unit(header: Dataset, frame: int, modality: Rescale | LookupTable | None, notes: frozenset[Note]) -> str:
    """Return the unit of the modality values, upper case; ``""`` where nothing is said and the class decides."""
    stated = "" if modality is None else value_unit(header, frame) or _unit_of_map(header, frame)
    # A parametric map states its unit elsewhere (RealWorldValueMappingSequence); without its rescale no unit is known.
    unknown = str(header.get("SOPClassUID") or "") == _PARAMETRIC_MAP or Note.RESCALE_DROPPED in notes
    return stated or (_UNSPECIFIED if unknown else "")


def _unit_of_map(header: Dataset, frame: int) -> str:
    """Return a name for the unit of a multi-energy CT map that does not state it; ``""`` for any other image.

    A frame's own type comes before the file's, which says MIXED where its frames differ.
    """
    for place, keyword in (
        *((item, "FrameType") for item in frame_items(header, frame, "CTImageFrameTypeSequence")),
        (header, "ImageType"),
    ):
        types = [str(entry).strip().upper() for entry in place.get(keyword) or ()]
        if types:
            return types[3] if len(types) > 3 and types[3] in _CT_MAPS else ""
    return ""


def is_capture(header: Dataset) -> bool:
    """Return whether the image is a secondary capture: a picture, whatever its modality says."""
    sop_class = str(header.get("SOPClassUID") or "")
    return sop_class == _CAPTURES or sop_class.startswith(f"{_CAPTURES}.")


def stored_range(header: Dataset) -> Range:
    """Return the lowest and highest value that BitsStored and PixelRepresentation allow; 16 bits by default."""
    bits = int(header.get("BitsStored") or header.get("BitsAllocated") or 16)
    return StoredBits(bits, bits, bits - 1, header.get("PixelRepresentation") == 1).range


def _modality_transform(
    header: Dataset, frame: int, inputs: Range
) -> tuple[Rescale | LookupTable | None, frozenset[Note]]:
    tables = header.get("ModalityLUTSequence")
    place = holder(header, frame, "PixelValueTransformationSequence", "RescaleSlope")
    if _leads_to_intensity(header):
        there = bool(tables) or "RescaleSlope" in place
        return None, frozenset({Note.INTENSITY_LUT}) if there else _NO_NOTES
    if tables:
        return lookup_table(tables[0], encoding=encoding_of(header), inputs=inputs)
    slope, intercept = _number(place, "RescaleSlope"), _number(place, "RescaleIntercept")
    # Half a rescale is none, as in pydicom: guessing the other half would shift every value.
    if slope is None or intercept is None:
        return None, _NO_NOTES
    if slope == 0:
        return None, frozenset({Note.RESCALE_DROPPED})
    return Rescale(slope, intercept), _NO_NOTES


def _leads_to_intensity(header: Dataset) -> bool:
    """Return whether the modality LUT leads back to X-ray intensity, for measurements and not for the eye.

    PS3.3 C.8.7.1.1.2 says so of LOG and DISP; a LIN image has no use for one, and dcmtk leaves it out of XA and
    XRF in every case.
    """
    relation = str(header.get("PixelIntensityRelationship") or "").strip().upper()
    return str(header.get("SOPClassUID") or "") in _XA or (
        relation in ("LOG", "DISP") and str(header.get("Modality") or "").strip().upper() in ("XA", "RF")
    )


def _outputs(transform: Rescale | LookupTable | None, inputs: Range) -> Range:
    """Return the range of modality values that stored values of the range `inputs` may have."""
    if transform is None:
        return inputs
    if isinstance(transform, LookupTable):
        return float(transform.entries.min()), float(transform.entries.max())
    ends = [transform.slope * end + transform.intercept for end in inputs]
    return min(ends), max(ends)


def _voi_transform(
    header: Dataset, frame: int, inputs: Range
) -> tuple[Window | LookupTable | None, frozenset[Note]]:
    """Return the first VOI LUT, else the first window, of the frame's group, the shared one, or the header.

    The table comes before the window in a functional group as in the header; a window beside a broken table
    takes its place (PS3.3 C.7.6.16.2.10b, C.11.2).
    """
    notes = _NO_NOTES
    for place in (*frame_items(header, frame, "FrameVOILUTSequence"), header):
        tables = place.get("VOILUTSequence")
        if tables and "LUTDescriptor" in tables[0] and "LUTData" in tables[0]:
            try:
                return lookup_table(tables[0], encoding=encoding_of(header), inputs=inputs)
            except (ImageRefused, ValueError, TypeError):
                notes = frozenset({Note.WINDOW_DROPPED})
        if "WindowCenter" in place or "WindowWidth" in place:
            window, window_notes = _window(place)
            return window, notes | window_notes
    return None, notes


def _window(place: Dataset) -> tuple[Window | None, frozenset[Note]]:
    dropped = None, frozenset({Note.WINDOW_DROPPED})
    center, width = _number(place, "WindowCenter"), _number(place, "WindowWidth")
    if center is None or width is None:
        return (None, _NO_NOTES) if center is None and width is None else dropped
    if width <= 0:
        return dropped
    function = str(place.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in WINDOW_FUNCTIONS:
        return Window(center, width, "LINEAR" if width >= 1 else "LINEAR_EXACT"), frozenset(
            {Note.WINDOW_MENDED}
        )
    if function == "LINEAR" and width < 1:
        # PS3.3 C.11.2.1.2.1 has no LINEAR window narrower than one step; who writes one means LINEAR_EXACT.
        return Window(center, width, "LINEAR_EXACT"), frozenset({Note.WINDOW_MENDED})
    return Window(center, width, function), _NO_NOTES


def _inverted(header: Dataset) -> tuple[bool, frozenset[Note]]:
    """Return whether the lowest value is white: PresentationLUTShape before PhotometricInterpretation.

    PS3.3 C.11.6 binds INVERSE to MONOCHROME1 and IDENTITY to MONOCHROME2; where the two contradict, viewers
    (dcmtk among them) follow the shape.
    """
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    if shape not in ("IDENTITY", "INVERSE"):
        return inverted, _NO_NOTES
    contradicts = (shape == "INVERSE") != inverted
    return shape == "INVERSE", frozenset({Note.SHAPE_CONTRADICTS}) if contradicts else _NO_NOTES


def _number(place: Dataset, keyword: str) -> float | None:
    """Return the first value of an element, or None where it is absent or empty."""
    value = place.get(keyword)
    if value is not None and not isinstance(value, str | bytes | int | float) and isinstance(value, Sequence):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ImageRefused(Reason.UNREADABLE, f"{keyword} must be a finite number; found {number}")
    return number


def _padding(header: Dataset, pixel_keyword: str) -> Range | None:
    """Return the lowest and highest stored value that stand for "no image here"; both NaN where NaN does."""
    value_keyword, limit_keyword = _PADDINGS[pixel_keyword]
    read = _stored_value if pixel_keyword == "PixelData" else _float_value
    value, limit = read(header, value_keyword), read(header, limit_keyword)
    if value is None:
        return None
    if limit is None or math.isnan(value) or math.isnan(limit):
        return value, value
    return min(value, limit), max(value, limit)


def _float_value(header: Dataset, keyword: str) -> float | None:
    raw: Any = header.get(keyword)
    return None if raw is None or raw == "" else float(raw)


def _stored_value(header: Dataset, keyword: str) -> float | None:
    """Return a value of the pixels' own type, mended where a writer chose the other of US and SS."""
    raw = header.get(keyword)
    if isinstance(raw, bytes):
        raw = int.from_bytes(raw[:2], "little" if header.original_encoding[1] else "big")
    if raw is None or raw == "":
        return None
    value, turn = float(raw), 2.0 ** int(header.get("BitsAllocated") or 16)
    if header.get("PixelRepresentation") == 1:
        # As a pattern of the allocated or of the stored bits: 63488 and 2048 are both -2048 of 12 bits.
        stored = 2.0 ** int(header.get("BitsStored") or header.get("BitsAllocated") or 16)
        return value - turn if value >= turn / 2 else value - stored if value >= stored / 2 else value
    return value + turn if value < 0 else value
