"""DICOM header -> what grey values mean: LUTs, windows, padding, also from functional groups per frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from embedstore.errors import ImageRefused, Reason
from embedstore.images.window import GreyMeaning, LookupTable, Rescale, Window


def grey_meaning(header: Dataset, frame: int) -> GreyMeaning:
    """Return what the stored values of one grey frame mean.

    Raises
    ------
    ImageRefused
        With ``unreadable`` if a value is not a number or a table is shorter than it says.
    """
    return GreyMeaning(
        modality=_modality_transform(header, frame),
        voi=_voi_transform(header, frame),
        inverted=header.get("PhotometricInterpretation") == "MONOCHROME1",
        padding=_padding(header),
    )


def _modality_transform(header: Dataset, frame: int) -> Rescale | LookupTable | None:
    tables = header.get("ModalityLUTSequence")
    if tables:
        return _lookup_table(tables[0], header)
    holder = _holder(header, frame, "PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = _number(holder, "RescaleSlope"), _number(holder, "RescaleIntercept")
    # Half a rescale is none, as in pydicom: guessing the other half would shift every value.
    return None if slope is None or intercept is None else Rescale(slope, intercept)


def _voi_transform(header: Dataset, frame: int) -> Window | LookupTable | None:
    tables = header.get("VOILUTSequence")
    if tables and "LUTDescriptor" in tables[0] and "LUTData" in tables[0]:
        return _lookup_table(tables[0], header)
    holder = _holder(header, frame, "FrameVOILUTSequence", "WindowCenter")
    center, width = _number(holder, "WindowCenter"), _number(holder, "WindowWidth")
    if center is None or width is None:
        return None
    return Window(center, width, str(holder.get("VOILUTFunction") or "LINEAR").strip().upper()[:16])


def _holder(header: Dataset, frame: int, sequence: str, keyword: str) -> Dataset:
    """Return the dataset that holds `keyword` for a frame: its own group, the shared one, or the header.

    PS3.3 C.7.6.16: an attribute of a functional group is in one of the two, never in the header as well.
    """
    own: Sequence[Dataset] = header.get("PerFrameFunctionalGroupsSequence") or []
    shared: Sequence[Dataset] = header.get("SharedFunctionalGroupsSequence") or []
    for group in [*own[frame : frame + 1], *shared[:1]]:
        items = group.get(sequence)
        if items and keyword in items[0]:
            found: Dataset = items[0]
            return found
    return header


def _number(holder: Dataset, keyword: str) -> float | None:
    """Return the first value of an element, or None where it is absent or empty."""
    value = holder.get(keyword)
    if value is not None and not isinstance(value, str | bytes | int | float) and isinstance(value, Sequence):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ImageRefused(Reason.UNREADABLE, f"{keyword} must be a finite number; found {number}")
    return number


def _lookup_table(item: Dataset, header: Dataset) -> LookupTable:
    descriptor = _integers(item["LUTDescriptor"].value, header)
    if len(descriptor) != 3:
        raise ImageRefused(Reason.UNREADABLE, f"LUTDescriptor must be 3 numbers; found {len(descriptor)}")
    # PS3.3 C.11.1.1.1: 0 stands for 65,536; a table of a signed image may be read as negative.
    count = int(descriptor[0]) & 0xFFFF or 1 << 16
    bits = int(descriptor[2]) & 0xFF
    entries = _integers(item["LUTData"].value, header) & 0xFFFF
    if bits <= 8 and len(entries) * 2 == count + count % 2:
        # Two 8-bit entries in each 16-bit word, the first in the lower byte.
        entries = np.stack([entries & 0xFF, entries >> 8], axis=1).ravel()
    if len(entries) < count:
        raise ImageRefused(
            Reason.UNREADABLE, f"a lookup table of {count} entries has only {len(entries)} of them"
        )
    return LookupTable(int(descriptor[1]), entries[:count].astype(np.float64))


def _integers(value: Any, header: Dataset) -> np.typing.NDArray[np.int64]:
    """Return a LUT element's numbers; VR OW and an unresolved "US or SS" arrive as bytes."""
    if isinstance(value, bytes):
        order = "<" if header.original_encoding[1] else ">"
        return np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype(np.int64)
    return np.atleast_1d(np.asarray(value, np.int64))


def _padding(header: Dataset) -> tuple[float, float] | None:
    value = _stored_value(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = _stored_value(header, "PixelPaddingRangeLimit")
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _stored_value(header: Dataset, keyword: str) -> float | None:
    """Return a value of the pixels' own type, mended where a writer chose the other of US and SS."""
    raw = header.get(keyword)
    if isinstance(raw, bytes):
        raw = int.from_bytes(raw[:2], "little" if header.original_encoding[1] else "big")
    if raw is None or raw == "":
        return None
    value, turn = float(raw), 2.0 ** int(header.get("BitsAllocated") or 16)
    if header.get("PixelRepresentation") == 1:
        return value - turn if value >= turn / 2 else value
    return value + turn if value < 0 else value
