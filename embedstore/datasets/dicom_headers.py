"""What may be known about a DICOM file from its header: the attributes that are useful and name nobody.

Patient, study and series identifiers become keyed digests where they are read; nothing else of them is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import BinaryIO

from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread, read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

_LONGEST_VALUE_BYTES = 1024  # longer values of short attributes are lies
_DEFLATED_READ_BYTES, _INFLATED_BYTES = 8 << 20, 4 << 20
_MOST_FRAMES = 100_000
_KEY_HEX_DIGITS = 32  # 128 bits of HMAC-SHA256
_PIXEL_TAGS = 0x7FE00008
_MAGIC = b"DICM"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Group 2 or 8, little endian, with a plausible first element: a file without preamble (DICOM PS3.10, 7.1).
_BARE_STARTS = (
    b"\x08\x00\x05\x00",
    b"\x08\x00\x08\x00",
    b"\x08\x00\x16\x00",
    b"\x02\x00\x00\x00",
    b"\x02\x00\x01\x00",
)


class Kind(StrEnum):
    """What a file is."""

    IMAGE = "image"
    WITHOUT_PIXELS = "DICOM without pixels"
    FOREIGN = "not DICOM"


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """The attributes that may leave a scanning process; None where absent or not what the standard allows.

    Keys are the first 32 hexadecimal digits of HMAC-SHA256 of the identifier, None without a key.
    `burned_in` is BurnedInAnnotation (``YES``, ``NO``); `orientation`, `position_mm` and `spacing_mm` are
    ImageOrientationPatient (6), ImagePositionPatient (3) and PixelSpacing (rows, columns).
    """

    modality: str | None
    body_part: str | None
    laterality: str | None
    view_position: str | None
    rows: int
    columns: int
    frames: int
    bits_stored: int | None
    photometric: str | None
    spacing_mm: tuple[float, ...] | None
    slice_thickness_mm: float | None
    orientation: tuple[float, ...] | None
    position_mm: tuple[float, ...] | None
    instance_number: int | None
    manufacturer: str | None
    field_strength_t: float | None
    repetition_time_ms: float | None
    echo_time_ms: float | None
    transfer_syntax: str | None
    burned_in: str | None
    secondary_capture: bool
    patient_key: str | None
    study_key: str | None
    series_key: str | None


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """One file: what it is, its header if it is an image, and what is wrong with it, if anything."""

    path: str
    kind: Kind
    header: DicomHeader | None = None
    problem: str | None = None


def scan_file(folder: str, path: str, key: bytes | None) -> ScannedFile:
    """Read one header; to be called where the file may do no harm (`embedstore.datasets.dicom_scan`).

    Parameters
    ----------
    folder, path
        The file's folder and its name relative to it.
    key
        Secret for the patient, study and series keys; None leaves the keys out.

    Raises
    ------
    Exception
        Anything, from a hostile header.
    """
    try:
        file = open(os.path.join(folder, path), "rb")  # noqa: SIM115 - closed by the with below
    except OSError as error:
        return ScannedFile(path, Kind.IMAGE, problem=f"cannot be opened: {error.strerror}")
    with file:
        start = file.read(132)
        if start[128:] == _MAGIC:
            meta, dataset = _read_with_preamble(file)
        elif start[:4] in _BARE_STARTS:
            file.seek(0)
            bare = dcmread(
                file,
                stop_before_pixels=True,
                force=True,
                specific_tags=list(_TAGS),
                defer_size=_LONGEST_VALUE_BYTES,
            )
            meta, dataset = bare.file_meta, bare
        elif not start and path.lower().endswith((".dcm", ".dicom")):
            return ScannedFile(path, Kind.IMAGE, problem="the file is empty")
        else:
            return ScannedFile(path, Kind.FOREIGN)
    return _describe(path, _Values(meta), _Values(dataset), key)


def _read_with_preamble(file: BinaryIO) -> tuple[Dataset, Dataset]:
    """Read the file meta group, then the data set up to its pixels in the transfer syntax that it names."""
    meta = read_dataset(file, False, True, stop_when=_after_group_2, defer_size=_LONGEST_VALUE_BYTES)
    syntax = _Values(meta).text(0x00020010)
    source: BinaryIO = file
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom would inflate the whole file, however large it becomes; the header lies at its start.
        source = BytesIO(
            zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(_DEFLATED_READ_BYTES), _INFLATED_BYTES)
        )
    dataset = read_dataset(
        source,
        syntax == ImplicitVRLittleEndian,
        syntax != ExplicitVRBigEndian,
        stop_when=_at_pixels,
        defer_size=_LONGEST_VALUE_BYTES,
        specific_tags=list(_TAGS),
    )
    return meta, dataset


def _after_group_2(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >> 16 != 2


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >= _PIXEL_TAGS


_TAGS = (
    0x00080016, 0x00080060, 0x00080070, 0x00180015, 0x00180050, 0x00180080, 0x00180081, 0x00180087, 0x00185101,
    0x00100020, 0x0020000D, 0x0020000E, 0x00200013, 0x00200020, 0x00200032, 0x00200037, 0x00200060, 0x00200062,
    0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280101, 0x00280301,
)  # fmt: skip


def _describe(path: str, meta: _Values, values: _Values, key: bytes | None) -> ScannedFile:
    sop_class = values.text(0x00080016) or meta.text(0x00020002) or ""
    rows, columns = values.integer(0x00280010), values.integer(0x00280011)
    if not rows or not columns:
        if rows is columns is None and "Image Storage" not in UID(sop_class).name:
            return ScannedFile(path, Kind.WITHOUT_PIXELS)
        return ScannedFile(
            path, Kind.IMAGE, problem=f"Rows and Columns must be positive; found {rows} and {columns}"
        )
    frames = values.integer(0x00280008)
    frames = 1 if frames is None else frames
    if not 1 <= frames <= _MOST_FRAMES:
        return ScannedFile(
            path, Kind.IMAGE, problem=f"NumberOfFrames must be 1 to {_MOST_FRAMES:,}; found {frames}"
        )
    syntax = meta.text(0x00020010)
    header = DicomHeader(
        modality=values.code(0x00080060),
        body_part=values.code(0x00180015),
        laterality=values.code(0x00200060) or values.code(0x00200062),
        view_position=values.code(0x00185101),
        rows=rows,
        columns=columns,
        frames=frames,
        bits_stored=values.integer(0x00280101),
        photometric=values.code(0x00280004),
        spacing_mm=values.decimals(0x00280030, 2),
        slice_thickness_mm=values.decimal(0x00180050),
        orientation=values.decimals(0x00200037, 6),
        position_mm=values.decimals(0x00200032, 3),
        instance_number=values.integer(0x00200013),
        manufacturer=values.label(0x00080070),
        field_strength_t=values.decimal(0x00180087),
        repetition_time_ms=values.decimal(0x00180080),
        echo_time_ms=values.decimal(0x00180081),
        transfer_syntax=syntax if syntax in UID_dictionary else None,
        burned_in=values.code(0x00280301),
        secondary_capture=sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + "."),
        patient_key=_keyed(key, "patient", values.raw(0x00100020)),
        study_key=_keyed(key, "study", values.raw(0x0020000D)),
        series_key=_keyed(key, "series", values.raw(0x0020000E)),
    )
    return ScannedFile(path, Kind.IMAGE, header)


def _keyed(key: bytes | None, level: str, identifier: bytes) -> str | None:
    if key is None or not identifier:
        return None
    return hmac.new(key, level.encode() + b"\0" + identifier, hashlib.sha256).hexdigest()[:_KEY_HEX_DIGITS]


class _Values:
    """Values of a data set from their bytes, so that a wrong one is None and never an exception.

    pydicom's own conversion accepts more, but raises, warns and keeps free text.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def raw(self, tag: int) -> bytes:
        """Return the bytes without padding; empty where absent."""
        element = self._dataset.get_item(tag) if tag in self._dataset else None
        found = getattr(element, "value", None)
        return found.strip(b" \0") if isinstance(found, bytes) else b""

    def text(self, tag: int) -> str | None:
        return self.raw(tag).decode("ascii", "replace") or None

    def code(self, tag: int) -> str | None:
        """Return the first code: 16 capitals, digits, blanks or underscores (DICOM PS3.5, 6.2)."""
        first = (self.text(tag) or "").partition("\\")[0].strip().upper()
        return first if re.fullmatch(r"[A-Z0-9 _]{1,16}", first) else None

    def label(self, tag: int) -> str | None:
        found = (self.text(tag) or "").strip()
        return found if re.fullmatch(r"[ -\[\]-~]{1,64}", found) else None

    def decimals(self, tag: int, count: int) -> tuple[float, ...] | None:
        parts = self.raw(tag).split(b"\\")
        if len(parts) != count:
            return None
        try:
            numbers = tuple(float(part) for part in parts)
        except ValueError:
            return None
        return numbers if all(math.isfinite(number) for number in numbers) else None

    def decimal(self, tag: int) -> float | None:
        numbers = self.decimals(tag, 1)
        return numbers[0] if numbers else None

    def integer(self, tag: int) -> int | None:
        """Return an integer string, or an unsigned short where the attribute is binary."""
        element = self._dataset.get_item(tag) if tag in self._dataset else None
        found = getattr(element, "value", None)
        if not isinstance(found, bytes) or element is None:
            return None
        if tag in _BINARY_TAGS:
            order = "<" if getattr(element, "is_little_endian", True) else ">"
            return int(struct.unpack(f"{order}H", found[:2])[0]) if len(found) >= 2 else None
        digits = found.strip(b" \0")
        return int(digits) if re.fullmatch(rb"[+-]?\d{1,12}", digits) else None


_BINARY_TAGS = (0x00280010, 0x00280011, 0x00280101)
