"""What may be known about a DICOM file from its header: the attributes that are useful and name nobody.

Identifiers become keyed digests where they are read. With a key they come along themselves as well, for the map that
its owner keeps beside it (`embedstore.keys.owner_map`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import BytesIO
from typing import Any, BinaryIO, Literal

from pydicom._uid_dict import UID_dictionary
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from embedstore.headers.dicom_values import Values
from embedstore.headers.frame_geometry import (
    GROUP_TAGS,
    GROUPS_PER_FRAME,
    SHARED_GROUPS,
    FrameGeometry,
    frame_geometry,
)
from embedstore.headers.modality_words import modality_code
from embedstore.images.file_kind import DICOM, HEAD_BYTES, bare_encoding, file_kind, has_preamble
from embedstore.keys.keyed_ids import CLINICAL_IDS, identifier_bytes, keyed_id
from embedstore.lumbar.weighting_words import said_weighting

_LONGEST_VALUE_BYTES = 1024  # longer values of short attributes are lies
_DEFLATED_READ_BYTES, _INFLATED_BYTES = 8 << 20, 4 << 20
_MOST_FRAMES = 100_000
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
# MPEG-2, MPEG-4, HEVC and SMPTE ST 2110: one stream for all frames, which no codec here reads.
_VIDEO_NUMBERS = range(100, 110)
_VIDEO_LIVE = "1.2.840.10008.1.2.7."


class Kind(StrEnum):
    """What a file is."""

    IMAGE = "image"
    WITHOUT_PIXELS = "DICOM without pixels"
    SEGMENTATION = "segmentations"
    VIDEO = "videos, which no codec here reads"
    BROKEN = "broken DICOM header"
    FOREIGN = "not DICOM"


@dataclass(frozen=True, slots=True)
class DicomHeader:
    r"""The attributes that may leave a scanning process; None where absent or not what the standard allows.

    Keys are pseudonyms (`embedstore.keys.keyed_ids.keyed_id`) of the identifiers, which `clinical_ids` holds in the
    order of `embedstore.keys.keyed_ids.CLINICAL_IDS`; all are None without a key.
    `burned_in` is BurnedInAnnotation (``YES``, ``NO``); `orientation`, `position_mm` and `spacing_mm` are
    ImageOrientationPatient (6), ImagePositionPatient (3) and PixelSpacing (rows, columns); `image_type` the
    first three values of ImageType, as DICOM writes them (``ORIGINAL\PRIMARY\AXIAL``). `frame_planes` has the
    geometry of each frame where the file has functional groups; `of_frame` puts it in place. `weighting` is what
    SeriesDescription says of it (``T1``, ``T2``): the description itself is free text, which may name a patient.
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
    image_type: str | None = None
    stack: int | None = None
    place: int | None = None
    accession_key: str | None = None
    image_key: str | None = None
    weighting: str | None = None
    clinical_ids: tuple[str | None, ...] | None = field(default=None, repr=False)
    frame_planes: tuple[FrameGeometry, ...] | None = None

    def of_frame(self, frame: int) -> DicomHeader:
        """Return what the header says of one frame, from 0.

        A file of several frames without functional groups says nothing of where each lies.
        """
        if self.frame_planes is None:
            return self if self.frames == 1 else replace(self, orientation=None, position_mm=None)
        plane, alone = self.frame_planes[frame], self.frames == 1
        return replace(
            self,
            orientation=plane.orientation or (self.orientation if alone else None),
            position_mm=plane.position_mm or (self.position_mm if alone else None),
            spacing_mm=plane.spacing_mm or self.spacing_mm,
            slice_thickness_mm=plane.thickness_mm or self.slice_thickness_mm,
            image_type=plane.image_type or self.image_type,
            stack=plane.stack,
            place=plane.place,
            frame_planes=None,
        )


def header_from_values(values: Sequence[Any]) -> DicomHeader:
    """Return the header whose `dataclasses.astuple` went through JSON, where tuples are lists."""
    known: list[Any] = [_untied(value) for value in values]
    if known[-1] is not None:
        known[-1] = tuple(FrameGeometry(*[_untied(value) for value in plane]) for plane in known[-1])
    return DicomHeader(*known)


def _untied(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """One file: what it is, its header if it is an image, and what is wrong with it, if anything.

    `sop_class` is the standard's name for what a DICOM file without pixels holds.
    """

    path: str
    kind: Kind
    header: DicomHeader | None = None
    problem: str | None = None
    sop_class: str | None = None


def scan_file(folder: str, path: str, key: bytes | None) -> ScannedFile:
    """Read one header; to be called where the file may do no harm (`embedstore.headers.dicom_scan`).

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
        head = file.read(HEAD_BYTES)
        if not head and path.lower().endswith((".dcm", ".dicom")):
            return ScannedFile(path, Kind.BROKEN, problem="the file is empty")
        if file_kind(head) != DICOM:
            return ScannedFile(path, Kind.FOREIGN)
        file.seek(HEAD_BYTES if has_preamble(head) else 0)
        return _scan_dicom(file, path, key)


def _scan_dicom(file: BinaryIO, path: str, key: bytes | None) -> ScannedFile:
    """Read the file meta group, then the data set up to its pixels in the transfer syntax that it names."""
    meta = Values(read_dataset(file, False, True, stop_when=_after_group_2, defer_size=_LONGEST_VALUE_BYTES))
    syntax = meta.text(0x00020010)
    source, start = file, file.tell()
    if syntax == DeflatedExplicitVRLittleEndian:
        # pydicom would inflate the whole file, however large it becomes; the header lies at its start.
        source, start = BytesIO(_inflated(file.read(_DEFLATED_READ_BYTES))), 0
    implicit, little_endian = _encoding(source, syntax)
    dataset = read_dataset(
        source, implicit, little_endian, stop_when=_at_pixels, defer_size=_LONGEST_VALUE_BYTES,
        specific_tags=list(_TAGS),
    )  # fmt: skip
    values = Values(dataset)
    scanned = _describe(path, meta, values, key, pixels=_holds_pixels(source, implicit, little_endian))
    if scanned.header is None or not any(tag in dataset for tag in (SHARED_GROUPS, GROUPS_PER_FRAME)):
        return scanned
    source.seek(start)
    return replace(scanned, header=_with_frame_planes(scanned.header, source, implicit, little_endian))


def _inflated(deflated: bytes) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, _INFLATED_BYTES)


def _encoding(source: BinaryIO, syntax: str | None) -> tuple[bool, bool]:
    """Return whether the data set is implicit, and whether it is little endian."""
    if syntax is not None:
        return syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    start = source.tell()
    bare = bare_encoding(source.read(8))
    source.seek(start)
    return (True, True) if bare is None else (bare.implicit, bare.little_endian)


def _holds_pixels(source: BinaryIO, implicit: bool, little_endian: bool) -> bool:
    """Return whether a pixel element that is not empty begins where reading the header stopped."""
    order: Literal["little", "big"] = "little" if little_endian else "big"
    head = source.read(12)
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    length = int.from_bytes(head[4:8] if implicit else head[8:12], order)
    return tag in _PIXEL_TAGS and length > 0


def _with_frame_planes(
    header: DicomHeader, source: BinaryIO, implicit: bool, little_endian: bool
) -> DicomHeader:
    """Read the functional groups whole, which the first pass only found to be there.

    Groups that cannot be read, or not in time, cost the frames their place and not the file its images.
    """
    try:
        groups = read_dataset(
            source, implicit, little_endian, stop_when=_at_pixels, specific_tags=list(GROUP_TAGS)
        )
        return replace(header, frame_planes=frame_geometry(groups, header.frames))
    except Exception:  # noqa: BLE001 - a hostile header may raise anything
        return header


def _after_group_2(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >> 16 != 2


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) >= _PIXEL_TAGS[0]


_TAGS = (
    0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080050, 0x00080060, 0x00080070,
    0x0008103E, 0x00180015, 0x00180050, 0x00180080, 0x00180081, 0x00180087,
    0x00185101, 0x00100020, 0x0020000D, 0x0020000E, 0x00200013, 0x00200020, 0x00200032, 0x00200037, 0x00200060,
    0x00200062, SHARED_GROUPS, GROUPS_PER_FRAME, 0x00280004, 0x00280008, 0x00280010, 0x00280011,
    0x00280030, 0x00280101, 0x00280301,
)  # fmt: skip


def _describe(path: str, meta: Values, values: Values, key: bytes | None, *, pixels: bool) -> ScannedFile:
    sop_class = values.text(0x00080016) or meta.text(0x00020002) or ""
    class_name = UID(sop_class).name if sop_class in UID_dictionary else None
    if sop_class in _SEGMENTATIONS:
        return ScannedFile(path, Kind.SEGMENTATION)
    if not pixels and "Image Storage" not in (class_name or ""):
        return ScannedFile(path, Kind.WITHOUT_PIXELS, sop_class=class_name)
    if is_video(meta.text(0x00020010)):
        return ScannedFile(path, Kind.VIDEO)
    rows, columns = values.integer(0x00280010), values.integer(0x00280011)
    if rows is columns is None and not pixels:
        return ScannedFile(path, Kind.BROKEN, problem="an image by its class, but its header describes none")
    if not rows or not columns:
        return ScannedFile(
            path, Kind.BROKEN, problem=f"Rows and Columns must be positive; found {rows} and {columns}"
        )
    frames = values.integer(0x00280008)
    frames = 1 if frames is None else frames
    if not 1 <= frames <= _MOST_FRAMES:
        return ScannedFile(
            path, Kind.BROKEN, problem=f"NumberOfFrames must be 1 to {_MOST_FRAMES:,}; found {frames}"
        )
    if not pixels:
        return ScannedFile(path, Kind.BROKEN, problem="an image, but no pixels follow the header")
    syntax = meta.text(0x00020010)
    modality = values.code(0x00080060)
    header = DicomHeader(
        modality=(modality_code(modality) or modality) if modality else None,
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
        image_type="\\".join(values.codes(0x00080008, 3)) or None,
        weighting=said_weighting(values.text(0x0008103E) or "") or None,
        **_identifiers(key, meta, values),
    )
    return ScannedFile(path, Kind.IMAGE, header)


def _identifiers(key: bytes | None, meta: Values, values: Values) -> dict[str, Any]:
    """Return the keys of a header and what they stand for."""
    names = ("patient_key", "study_key", "series_key", "accession_key", "image_key")
    if key is None:
        return dict.fromkeys(names)
    clinical = {
        "PatientID": values.identifier(0x00100020),
        "StudyInstanceUID": values.identifier(0x0020000D),
        "SeriesInstanceUID": values.identifier(0x0020000E),
        "AccessionNumber": values.identifier(0x00080050),
        # The file's own header names its object too; objects from before DICOM have neither.
        "SOPInstanceUID": values.identifier(0x00080018) or meta.identifier(0x00020003),
    }
    texts = [clinical[name] for name in CLINICAL_IDS]
    levels = [level for level, _ in CLINICAL_IDS.values()]
    keyed = [
        keyed_id(key, level, identifier_bytes(text)) if text else None
        for level, text in zip(levels, texts, strict=True)
    ]
    return dict(zip(names, keyed, strict=True)) | {"clinical_ids": tuple(texts)}


def is_video(syntax: str | None) -> bool:
    """Return whether a transfer syntax is a video: one stream for all frames."""
    if syntax is None:
        return False
    number = syntax.removeprefix("1.2.840.10008.1.2.4.").partition(".")[0]
    in_range = number.isdecimal() and number != syntax and int(number) in _VIDEO_NUMBERS
    return in_range or syntax.startswith(_VIDEO_LIVE)
