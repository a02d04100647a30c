"""The reader of any DICOM folder: real files, hostile files, and nobody's name in the manifest."""

import hashlib
import hmac
import os
import random
import shutil
import struct
import zlib
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    SegmentationStorage,
    generate_uid,
)

from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.errors import DataError, UsageError
from embedstore.headers import dicom_scan
from embedstore.headers.dicom_headers import Kind
from embedstore.headers.dicom_scan import scan_headers
from embedstore.headers.file_frames import frame_id
from embedstore.manifest import path_from_manifest
from embedstore.testing import check_reader

REAL = Path(pydicom.data.__file__).parent / "test_files"
KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "secret.key"
    path.write_bytes(KEY + b"\n")
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "export"
    (root / "ct").mkdir(parents=True)
    (root / "mr").mkdir()
    for name, target in (
        ("CT_small.dcm", "ct/1.dcm"),
        ("MR_small.dcm", "mr/slice 1.dcm"),
        ("MR_small_RLE.dcm", "mr/line\nend"),
        ("SC_rgb_rle_2frame.dcm", "capture.dcm"),
        ("rtplan.dcm", "plan.dcm"),
        ("README.txt", "README.txt"),
    ):
        shutil.copy(REAL / name, root / target)
    return root


def rows(collection):
    """Return the records by the name of their file, which is not among their columns."""
    return {
        frame_id(collection.manifest.paths[row["image_id"]], row["frame"]): row
        for row in collection.manifest.table.to_pylist()
    }


def scan(root, names, **options):
    return list(scan_headers(str(root), names, **options))


def test_the_reader_obeys_the_contract(folder, key_file):
    check_reader(DicomFolder(key_file), folder, knows_patients=True)


def test_images_become_records_and_everything_else_is_counted(folder, key_file):
    collection = DicomFolder(key_file).read(folder)
    assert set(rows(collection)) == {
        "capture.dcm",
        "capture.dcm#1",
        "ct/1.dcm",
        "mr/line\nend",
        "mr/slice 1.dcm",
    }
    assert collection.summary["files"] == 6
    assert collection.summary["DICOM image files"] == 4
    assert collection.summary["files left out, DICOM without pixels"] == 1
    assert collection.summary["files left out, not DICOM"] == 1
    assert collection.summary["images by modality"] == "CT 1, MR 2, OT 2"


def test_each_frame_of_a_file_is_a_record(folder, key_file):
    found = rows(DicomFolder(key_file).read(folder))
    frames = [found["capture.dcm"], found["capture.dcm#1"]]
    assert [row["frame"] for row in frames] == [0, 1]
    assert frames[1]["image_id"] == f"{frames[0]['image_id']}#1"
    assert [row["path"] for row in frames] == [None, None]


def test_values_are_those_that_pydicom_reads(folder, key_file):
    row = rows(DicomFolder(key_file).read(folder))["ct/1.dcm"]
    dataset = pydicom.dcmread(folder / "ct/1.dcm")
    assert (row["rows"], row["columns"], row["bits_stored"]) == (
        dataset.Rows,
        dataset.Columns,
        dataset.BitsStored,
    )
    assert row["modality"] == dataset.Modality
    assert row["manufacturer"] == dataset.Manufacturer
    assert row["photometric"] == dataset.PhotometricInterpretation
    assert row["slice_thickness_mm"] == pytest.approx(float(dataset.SliceThickness))
    assert row["position_mm"] == pytest.approx(float(dataset.ImagePositionPatient[2]), abs=1e-3)
    assert row["plane"] == "axial"
    assert row["transfer_syntax"] == ExplicitVRLittleEndian


def test_keys_are_hmacs_of_the_identifiers(folder, key_file):
    row = rows(DicomFolder(key_file).read(folder))["ct/1.dcm"]
    dataset = pydicom.dcmread(folder / "ct/1.dcm")
    for column, level, identifier in (
        ("patient_id", b"patient", dataset.PatientID),
        ("study_id", b"study", dataset.StudyInstanceUID),
        ("series_id", b"series", dataset.SeriesInstanceUID),
        ("image_id", b"image", dataset.SOPInstanceUID),
    ):
        expected = hmac.new(KEY, level + b"\0" + identifier.encode(), hashlib.sha256).hexdigest()[:32]
        assert row[column] == expected


def test_another_key_gives_other_patients(folder, key_file, tmp_path):
    other = tmp_path / "other.key"
    other.write_bytes(b"another key of enough bytes")
    first, second = (set(rows(DicomFolder(path).read(folder))) for path in (key_file, other))
    assert first == second
    columns = [DicomFolder(path).read(folder).manifest.column("patient_id") for path in (key_file, other)]
    assert not set(columns[0]) & set(columns[1])


def test_no_identifying_value_reaches_the_manifest_or_the_summary(tmp_path, key_file):
    root = tmp_path / "named"
    root.mkdir()
    dataset = pydicom.dcmread(REAL / "CT_small.dcm")
    dataset.PatientName, dataset.PatientID = "Secretname^Anna", "SECRETID42"
    dataset.PatientBirthDate, dataset.StudyDate = "19501231", "20200115"
    dataset.StudyDescription = "Secretname follow-up"
    dataset.add_new(0x00091001, "LO", "Secretname private")
    dataset.save_as(root / "1.dcm")
    collection = DicomFolder(key_file).read(root)
    everything = str(collection.manifest.table.to_pylist()) + str(dict(collection.summary))
    forbidden = [
        "ecret", "42", "1950", "20200115", str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID),
        str(dataset.SOPInstanceUID),
    ]  # fmt: skip
    keys = [collection.manifest.column(name)[0] for name in ("patient_id", "study_id", "series_id")]
    for key in keys:
        everything = everything.replace(key, "")
    assert not [value for value in forbidden if value in everything]


def test_free_text_where_a_code_belongs_is_dropped(tmp_path):
    dataset = pydicom.dcmread(REAL / "CT_small.dcm")
    dataset["Modality"]._value = "Anna Müller, born 1950"
    dataset.save_as(tmp_path / "1.dcm")
    (scanned,) = scan(tmp_path, ["1.dcm"])
    assert scanned.header.modality is None


def test_burned_in_annotation_other_than_no_and_secondary_captures_are_flagged(tmp_path, key_file):
    root = tmp_path / "flags"
    root.mkdir()
    for name, value in (("yes", "YES"), ("no", "NO"), ("odd", "MAYBE"), ("unknown", None)):
        dataset = pydicom.dcmread(REAL / "CT_small.dcm")
        dataset.SOPInstanceUID = generate_uid()
        if value:
            dataset.BurnedInAnnotation = value
        dataset.save_as(root / f"{name}.dcm")
    shutil.copy(REAL / "SC_rgb_rle.dcm", root / "capture.dcm")
    collection = DicomFolder(key_file).read(root)
    found = {name: (row["burned_in"], row["secondary_capture"]) for name, row in rows(collection).items()}
    assert found == {
        "capture.dcm": ("unknown", "yes"),
        "no.dcm": ("no", "no"),
        "odd.dcm": ("yes", "no"),
        "unknown.dcm": ("unknown", "no"),
        "yes.dcm": ("yes", "no"),
    }
    assert collection.summary["images by burned-in annotation"] == "yes 2, no 1, not said 2"
    assert collection.summary["secondary captures"] == 1


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # the files are there to be wrong
def test_all_real_files_of_pydicom_are_told_apart_as_pydicom_does():
    names = sorted(path.relative_to(REAL).as_posix() for path in REAL.rglob("*") if path.is_file())
    scanned = scan(REAL, names)
    assert [entry.path for entry in scanned] == names
    for entry in scanned:
        dataset = pydicom.dcmread(REAL / entry.path, force=True)
        image = "PixelData" in dataset and dataset.get("SOPClassUID") != SegmentationStorage
        assert (entry.header.rows if entry.header else None) == (dataset.get("Rows") if image else None), (
            entry.path
        )
    assert sum(entry.header is not None for entry in scanned) > 80


def test_headers_cut_at_any_byte_give_a_record_or_a_count_and_never_an_exception(tmp_path):
    content = (REAL / "MR_small.dcm").read_bytes()
    names = []
    for size in [*range(0, 1700, 13)]:
        (tmp_path / f"{size}.dcm").write_bytes(content[:size])
        names.append(f"{size}.dcm")
    for entry in scan(tmp_path, names, workers=1):
        assert entry.header is not None or entry.problem or entry.kind is not Kind.IMAGE


def test_flipped_bytes_never_stop_the_scan(tmp_path):
    content = (REAL / "CT_small.dcm").read_bytes()[:6000]
    choose = random.Random(0)
    names = []
    for number in range(300):
        mutated = bytearray(content)
        for _ in range(choose.choice((1, 4, 40))):
            mutated[choose.randrange(len(mutated))] = choose.randrange(256)
        (tmp_path / f"{number}.dcm").write_bytes(mutated)
        names.append(f"{number}.dcm")
    assert len(scan(tmp_path, names)) == 300


def element(tag, vr, value):
    group, number = tag >> 16, tag & 0xFFFF
    if vr in (b"SQ", b"OB", b"UN"):
        return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def with_meta(syntax, content):
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = element(0x00020010, b"UI", uid)
    return b"\0" * 128 + b"DICM" + element(0x00020000, b"UL", struct.pack("<L", len(meta))) + meta + content


PIXELS = element(0x7FE00010, b"OB", bytes(512))
GRID = element(0x00280010, b"US", b"\x10\x00") + element(0x00280011, b"US", b"\x20\x00")


def test_a_deflate_bomb_is_inflated_no_further_than_its_header(tmp_path):
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFF0)
    header = squeeze.compress(GRID + pixels) + squeeze.flush(zlib.Z_FULL_FLUSH)
    zeros = squeeze.compress(bytes(10 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    bomb = header + 400 * zeros + squeeze.flush()  # 4 GB, twice what a scanning process may have
    (tmp_path / "bomb.dcm").write_bytes(with_meta(DeflatedExplicitVRLittleEndian, bomb))
    (scanned,) = scan(tmp_path, ["bomb.dcm"])
    assert (scanned.header.rows, scanned.header.columns) == (16, 32)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            struct.pack("<HH2sHL", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
            "broken|describes none",
        ),
        (
            (struct.pack("<HH2sHL", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff")
            * 5000,
            "broken|describes none",
        ),
        (
            element(0x00280010, b"US", b"\0\0") + element(0x00280011, b"US", b"\x01\0"),
            "positive; found 0 and 1",
        ),
        (
            element(0x00280008, b"IS", b"999999999 ") + GRID,
            "NumberOfFrames must be 1 to 100,000; found 999999999",
        ),
        (element(0x00280008, b"IS", b"-1") + GRID, "NumberOfFrames"),
        (GRID, "no pixels follow"),
    ],
    ids=["open sequence", "recursion bomb", "no rows", "many frames", "negative frames", "no pixels"],
)
def test_a_hostile_header_is_called_broken(tmp_path, content, problem):
    sop = element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.4\0")
    (tmp_path / "1.dcm").write_bytes(with_meta(ExplicitVRLittleEndian, sop + content))
    (scanned,) = scan(tmp_path, ["1.dcm"])
    assert scanned.kind is Kind.BROKEN
    assert scanned.header is None
    assert any(part in scanned.problem for part in problem.split("|"))


def test_a_lying_length_does_not_take_memory(tmp_path):
    lie = struct.pack("<HH2sHL", 0x0028, 0x0004, b"UN", 0, 0xFFFFFFF0)
    (tmp_path / "1.dcm").write_bytes(with_meta(ExplicitVRLittleEndian, GRID[:0] + lie))
    (scanned,) = scan(tmp_path, ["1.dcm"])
    assert scanned.header is None


@pytest.mark.parametrize("value", [b"nan\\0\\0", b"1\\2", b"x\\y\\z", b"1e999\\0\\0", b"1\\2\\3\\4"])
def test_an_impossible_position_leaves_the_image_without_geometry(tmp_path, key_file, value):
    root = tmp_path / "odd"
    root.mkdir()
    position = element(0x00200032, b"DS", value + b" " * (len(value) % 2))
    orientation = element(0x00200037, b"DS", b"1\\0\\0\\0\\1\\0 ")
    spacing = element(0x00280030, b"DS", b"1\\1 ")
    uids = element(0x0020000D, b"UI", b"1.2\0") + element(0x0020000E, b"UI", b"1.3\0")
    (root / "1.dcm").write_bytes(
        with_meta(ExplicitVRLittleEndian, uids + position + orientation + GRID + spacing + PIXELS)
    )
    (row,) = rows(DicomFolder(key_file).read(root)).values()
    assert (row["rows"], row["columns"]) == (16, 32)
    assert row["plane"] is row["position_mm"] is row["position_fraction"] is None


def test_a_file_that_kills_its_process_is_lost_alone(tmp_path, monkeypatch):
    for name in ("a", "killer", "z"):
        shutil.copy(REAL / "CT_small.dcm", tmp_path / name)
    start = dicom_scan._START.replace(
        "answer()",
        "import embedstore.headers.dicom_scan as d, os; real = d.scan_file; "
        "d.scan_file = lambda f, p, k: os._exit(9) if p == 'killer' else real(f, p, k); answer()",
    )
    monkeypatch.setattr(dicom_scan, "_START", start)
    scanned = scan(tmp_path, ["a", "killer", "z"], workers=1)
    assert [entry.header is not None for entry in scanned] == [True, False, True]
    assert scanned[1].problem == "reading the header killed its process"


def test_a_file_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    for name in ("a", "slow"):
        shutil.copy(REAL / "CT_small.dcm", tmp_path / name)
    start = dicom_scan._START.replace(
        "answer()",
        "import embedstore.headers.dicom_scan as d, time; real = d.scan_file; d._FILE_TIMEOUT_S = 0.3; "
        "d.scan_file = lambda f, p, k: time.sleep(60) if p == 'slow' else real(f, p, k); answer()",
    )
    monkeypatch.setattr(dicom_scan, "_START", start)
    scanned = scan(tmp_path, ["a", "slow"])
    assert [entry.problem for entry in scanned] == [None, "the header was not read in 0.3 s"]


def test_an_abandoned_scan_leaves_no_process(tmp_path):
    shutil.copy(REAL / "CT_small.dcm", tmp_path / "1.dcm")
    entries = scan_headers(str(tmp_path), ["1.dcm"] * 300)
    assert next(entries).header is not None
    entries.close()


def test_empty_and_vanished_files_have_a_problem(tmp_path):
    (tmp_path / "empty.dcm").touch()
    scanned = scan(tmp_path, ["empty.dcm", "gone.dcm"])
    assert [entry.problem for entry in scanned] == [
        "the file is empty",
        "cannot be opened: No such file or directory",
    ]


def test_link_loops_pipes_and_names_that_are_not_utf8_are_survived(folder, key_file):
    (folder / "ct/up").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "again").symlink_to(folder / "mr")
    os.mkfifo(folder / "pipe")
    shutil.copy(REAL / "CT_small.dcm", os.fsencode(folder) + b"/caf\xe9.dcm")
    collection = check_reader(DicomFolder(key_file), folder, knows_patients=True)
    assert collection.summary["left out, not a regular file"] == 2
    # ct/1.dcm holds the same bytes: of the two the first by path stays.
    assert (len(collection.manifest), collection.summary["files left out, copies of another"]) == (5, 1)
    odd = next(path for path in collection.manifest.paths.values() if path.startswith("caf"))
    assert path_from_manifest(folder, odd).read_bytes() == (REAL / "CT_small.dcm").read_bytes()


def test_without_a_key_file_nothing_is_read(folder):
    with pytest.raises(UsageError, match="needs a key file"):
        DicomFolder().read(folder)


def test_reading_makes_no_key_file_and_no_two_new_keys_are_alike(folder, tmp_path):
    first, second = (DicomFolder(tmp_path / "new.key").read(folder) for _ in range(2))
    assert first.key.is_new
    assert not (tmp_path / "new.key").exists()
    assert first.key.fingerprint != second.key.fingerprint
    assert not set(first.manifest.column("image_id")) & set(second.manifest.column("image_id"))


def test_a_short_or_unusable_key_file_is_refused(folder, tmp_path):
    (tmp_path / "short.key").write_bytes(b"abc\n")
    with pytest.raises(DataError, match="at least 16 bytes; found 3"):
        DicomFolder(tmp_path / "short.key").read(folder)
    with pytest.raises(DataError, match="neither read nor made"):
        DicomFolder(tmp_path).read(folder)


def test_a_folder_without_dicom_is_refused(tmp_path, key_file):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/1.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(DataError, match=r"expected DICOM images .*found 1 entries \('1.jpg'\)"):
        DicomFolder(key_file).read(tmp_path / "pictures")
    with pytest.raises(DataError, match="found nothing of that name"):
        DicomFolder(key_file).read(tmp_path / "nowhere")


def test_paths_stay_where_they_are_wanted(folder, key_file):
    collection = DicomFolder(key_file, hide_paths=False).read(folder)
    assert collection.manifest.column("path") == [
        "capture.dcm", "capture.dcm", "ct/1.dcm", "mr/line\nend", "mr/slice 1.dcm"
    ]  # fmt: skip
    assert collection.manifest.column("image_id")[1] == "capture.dcm#1"
    assert not collection.hides_paths


def test_rows_stand_in_an_order_that_says_nothing_of_names(tmp_path, key_file):
    """The order of folders named after patients is that of their names."""
    for number, name in enumerate(("Abt", "Beck", "Cohn", "Dorn", "Ernst", "Funk", "Graf", "Hahn")):
        dataset = pydicom.dcmread(REAL / "CT_small.dcm")
        dataset.PatientID, dataset.SOPInstanceUID = f"P{number}", generate_uid()
        (tmp_path / "named" / name).mkdir(parents=True)
        dataset.save_as(tmp_path / "named" / name / "1.dcm")
    patients = DicomFolder(key_file).read(tmp_path / "named").manifest.column("patient_id")
    assert patients == sorted(patients)


def test_files_of_one_uid_are_one_image_if_their_bytes_are_one(tmp_path, key_file):
    """The first by path keeps the plain id, a whole copy is left out, other bytes are another image."""
    root = tmp_path / "copies"
    root.mkdir()
    shutil.copy(REAL / "CT_small.dcm", root / "b.dcm")
    shutil.copy(REAL / "CT_small.dcm", root / "c.dcm")
    changed = pydicom.dcmread(REAL / "CT_small.dcm")
    changed.SliceThickness = "7"
    changed.save_as(root / "d.dcm")
    collection = DicomFolder(key_file).read(root)
    found = {path: image_id for image_id, path in collection.manifest.paths.items()}
    uid = hmac.new(KEY, b"image\0" + changed.SOPInstanceUID.encode(), hashlib.sha256).hexdigest()[:32]
    assert found["b.dcm"] == uid
    assert found["d.dcm"].startswith(f"{uid}-")
    assert set(found) == {"b.dcm", "d.dcm"}
    assert collection.summary["files left out, copies of another"] == 1
    assert collection.summary["files with the SOP instance UID of another"] == 1


@pytest.mark.parametrize(
    ("character_set", "written"),
    [
        ("ISO_IR 100", "M\xfcller-7".encode("latin-1")),
        ("ISO_IR 192", "M\xfcller-7".encode()),
        ("ISO_IR 192", "Mu\u0308ller-7".encode()),
        ("", "M\xfcller-7".encode()),
        ("", "M\xfcller-7".encode("latin-1")),
        ("ISO_IR 192", "M\xfcller-7".encode("latin-1")),  # not what it says
    ],
)
def test_an_umlaut_in_an_identifier_is_one_in_every_character_set(tmp_path, character_set, written):
    header = element(0x00080005, b"CS", character_set.encode() + b" " * (len(character_set) % 2))
    named = element(0x00100020, b"LO", written + b" " * (len(written) % 2))
    content = (header if character_set else b"") + named + GRID + PIXELS
    (tmp_path / "1.dcm").write_bytes(with_meta(ExplicitVRLittleEndian, content))
    (scanned,) = scan(tmp_path, ["1.dcm"], key=KEY)
    expected = hmac.new(KEY, b"patient\0" + "M\xfcller-7".encode(), hashlib.sha256).hexdigest()[:32]
    assert scanned.header.patient_key == expected
