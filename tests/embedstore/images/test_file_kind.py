"""The one recogniser: what a folder search takes for DICOM is what the decoder opens."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.headers.dicom_headers import Kind
from embedstore.headers.dicom_scan import scan_headers
from embedstore.images.file_kind import DICOM, HEAD_BYTES, BareEncoding, bare_encoding, file_kind
from tests.image_files import decoded, picture_bytes, same_size

REAL = Path(pydicom.data.__file__).parent / "test_files"
RAMP = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint16) * 40
ORDER = {True: "<", False: ">"}


def slice_of_ramp(**more):
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.826.0.1.1"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.826.0.1.2", "1.2.826.0.1.3"
    made.PatientID, made.Modality = "P1", "CR"
    made.Rows, made.Columns = RAMP.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    for name, value in more.items():
        setattr(made, name, value)
    return made


def bare(made, *, implicit, little_endian=True, drop=(), first=b""):
    """Write a data set without preamble and meta information, `first` before its first element."""
    for keyword in drop:
        delattr(made, keyword)
    made.PixelData = RAMP.astype("<u2" if little_endian else ">u2").tobytes()
    made["PixelData"].VR = "OW"
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = implicit, little_endian
    write_dataset(stream, made)
    return first + stream.getvalue()


def group_length(implicit, little_endian):
    order = ORDER[little_endian]
    head = struct.pack(f"{order}HH", 8, 0)
    return (
        head + (struct.pack(f"{order}I", 4) if implicit else b"UL" + struct.pack(f"{order}H", 4)) + bytes(4)
    )


def length_to_end(order):
    return struct.pack(f"{order}HHII", 8, 1, 4, 0x3000)


ENCODINGS = [(True, True), (False, True), (False, False), (True, False)]
NAMES = ["implicit", "explicit", "explicit big endian", "implicit big endian"]
STARTS = {
    "sop class": {},
    "character set": {"SpecificCharacterSet": "ISO_IR 100"},
    "image type": {"ImageType": ["ORIGINAL", "PRIMARY"]},
    "creation date": {"InstanceCreationDate": "20000101"},
    "creation time": {"InstanceCreationTime": "101010"},
    "language": {"LanguageCodeSequence": []},
}


def assert_found_and_read(content, folder):
    (folder / "one").write_bytes(content)
    (scanned,) = scan_headers(str(folder), ["one"])
    assert scanned.kind is Kind.IMAGE, scanned
    assert (scanned.header.rows, scanned.header.columns, scanned.header.frames) == (32, 32, 1)
    shown = decoded(content, folder, spec=same_size(RAMP)).pixels
    np.testing.assert_array_equal(shown, np.rint(RAMP / RAMP.max() * 255))
    return scanned.header


@pytest.mark.parametrize(("implicit", "little_endian"), ENCODINGS, ids=NAMES)
@pytest.mark.parametrize("start", STARTS)
def test_a_data_set_without_preamble_is_found_and_read(tmp_path, implicit, little_endian, start):
    content = bare(slice_of_ramp(**STARTS[start]), implicit=implicit, little_endian=little_endian)
    assert bare_encoding(content[:8]) == BareEncoding(implicit, little_endian)
    assert_found_and_read(content, tmp_path)


@pytest.mark.parametrize(("implicit", "little_endian"), ENCODINGS, ids=NAMES)
def test_a_group_length_may_come_first(tmp_path, implicit, little_endian):
    first = group_length(implicit, little_endian)
    content = bare(slice_of_ramp(), implicit=implicit, little_endian=little_endian, first=first)
    header = assert_found_and_read(content, tmp_path)
    assert header.modality == "CR"


@pytest.mark.parametrize("little_endian", [True, False])
def test_an_acr_nema_image_is_grey_and_its_lowest_value_black(tmp_path, little_endian):
    made = slice_of_ramp()
    made.RecognitionCode = "ACR-NEMA 2.0"
    new = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SamplesPerPixel")
    first = group_length(True, little_endian) + length_to_end(ORDER[little_endian])
    content = bare(
        made,
        implicit=True,
        little_endian=little_endian,
        drop=(*new, "PhotometricInterpretation"),
        first=first,
    )
    assert_found_and_read(content, tmp_path)


@pytest.mark.parametrize("drop", [(), ("SOPClassUID", "SOPInstanceUID")])
def test_meta_information_without_preamble_is_read(tmp_path, drop):
    made = slice_of_ramp()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta = b"\2\0\x10\0UI\x14\0" + b"1.2.840.10008.1.2.1\0"
    assert_found_and_read(meta + bare(made, implicit=False, drop=(*drop, "file_meta")), tmp_path)


def test_a_data_set_that_lost_its_group_8_is_known_by_its_value_representation(tmp_path):
    group_8 = ("SOPClassUID", "SOPInstanceUID", "Modality")
    assert_found_and_read(bare(slice_of_ramp(), implicit=False, drop=group_8), tmp_path)


def test_a_folder_of_bare_files_is_a_folder_of_images(tmp_path):
    for number, (implicit, little_endian) in enumerate(ENCODINGS):
        content = bare(slice_of_ramp(), implicit=implicit, little_endian=little_endian)
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / str(number)).write_bytes(content)
    collection = DicomFolder(tmp_path / "key").read(tmp_path / "files")
    assert collection.manifest.column("modality") == ["CR"] * 4
    assert len(set(collection.manifest.column("patient_id"))) == 1
    assert "files left out, not DICOM" not in collection.summary


@pytest.mark.parametrize(
    "head",
    [b"", b"\x08", b"\x08\0\x05\0", b"hello, world", b"\x08\0\x08\0\xff\xff\xff\xff", bytes(200),
     b"\0\x08" + b"\xff" * 20, b"%PDF-1.7", b"PK\3\4" + bytes(40)],
)  # fmt: skip
def test_what_begins_like_nothing_known_is_no_dicom(head):
    assert file_kind(head) is None


def test_pictures_are_known_and_a_preamble_comes_before_them():
    pixels = np.zeros((3, 3), np.uint8)
    for name in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"):
        assert file_kind(picture_bytes(pixels, name)[:HEAD_BYTES]) == name
    # PS3.10 7.1: the preamble may hold a TIFF header.
    assert file_kind(b"II*\0".ljust(128, b"\0") + b"DICM") == DICOM


def test_every_real_file_that_the_decoder_could_open_is_found():
    names = sorted(path.name for path in REAL.glob("*") if path.is_file())
    for entry in scan_headers(str(REAL), names):
        head = (REAL / entry.path).read_bytes()[:HEAD_BYTES]
        assert (entry.kind is Kind.FOREIGN) == (file_kind(head) != DICOM), entry.path
