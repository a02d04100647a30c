"""A hospital's folder holds more than images: what is none is counted and named, and costs nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pydicom.data
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from cli.main import run
from embedstore.datasets.dicom_folder import DicomFolder
from embedstore.datasets.table import Table
from embedstore.headers.dicom_headers import is_video
from embedstore.store.reader import VALID, open_store
from tests.dicom_objects import dicom_object, item, save, with_pixels

REAL = Path(pydicom.data.__file__).parent / "test_files"
IMAGES = {
    "CT_small.dcm": 1,
    "MR_small.dcm": 1,
    "SC_rgb_rle_2frame.dcm": 2,
    "rtdose.dcm": 15,
    "examples_palette.dcm": 1,
}
NO_PIXELS = ("rtplan.dcm", "reportsi.dcm", "test-SR.dcm", "rtstruct.dcm", "waveform_ecg.dcm")
CAPTURED = ("OT", "CT", "MR")
GREY = (np.add.outer(np.arange(16), np.arange(16)) * 8).astype(np.uint8)
DOSE, SPECTRA, SEGMENTS = (
    "1.2.840.10008.5.1.4.1.1.88.67",
    "1.2.840.10008.5.1.4.1.1.4.2",
    "1.2.840.10008.5.1.4.1.1.66.4",
)


def video(syntax, frames):
    made = dicom_object(uid.VideoEndoscopicImageStorage, "ES", NumberOfFrames=frames, Rows=16, Columns=16)
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "YBR_PARTIAL_420", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = encapsulate([b"\0\0\0\x18ftypmp42" + bytes(1000)])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = syntax
    return made


def spectra():
    return dicom_object(SPECTRA, "MR", Rows=4, Columns=4, NumberOfFrames=1, SpectroscopyData=bytes(256))


def segments():
    made = with_pixels(dicom_object(SEGMENTS, "SEG"), np.zeros((2, 16, 16), np.uint8))
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit, made.PixelData = 0, bytes(64)
    return made


@pytest.fixture
def hospital(tmp_path):
    """Images among everything else; the number of frames that must have a vector."""
    root = tmp_path / "export"
    for name in (*IMAGES, *NO_PIXELS):
        (root / "real").mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / name, root / "real" / name)
    shutil.copy(REAL / "dicomdirtests" / "DICOMDIR", root / "DICOMDIR")
    save(
        with_pixels(dicom_object(uid.DigitalXRayImageStorageForPresentation, "DX"), GREY[None]),
        root / "made/dx",
    )
    for modality in CAPTURED:  # without rescale values, and of no MR series: pictures all the same
        capture = dicom_object(uid.SecondaryCaptureImageStorage, modality)
        save(with_pixels(capture, GREY[None]), root / f"made/capture {modality}")
    save(dicom_object(DOSE, "SR", ContentSequence=[item(ValueType="TEXT")]), root / "made/dose.dcm")
    save(spectra(), root / "made/spectra.dcm")
    save(segments(), root / "made/segments.dcm")
    save(video(uid.MPEG4HP41, 3000), root / "made/video.dcm")
    save(dicom_object(uid.CTImageStorage, "CT", Rows=16, Columns=16), root / "made/stripped.dcm")
    (root / "made/cut.dcm").write_bytes((root / "made/dx").read_bytes()[:400])
    (root / "made/empty.dcm").touch()
    (root / "notes.txt").write_text("no image")
    Image.fromarray(GREY).save(root / "screen.png")
    return root, sum(IMAGES.values()) + 1 + len(CAPTURED)


def test_a_mixed_folder_ends_well_when_every_image_has_a_vector(hospital, tmp_path, capfd):
    root, images = hospital
    code = run(
        ["extract", "--dataset", "dicom-folder", "--root", str(root), "--key-file", "key", "--store", "mixed.store",
         "--encoder", "hog", "--strict", "--workers", "2"]
    )  # fmt: skip
    printed = capfd.readouterr().out
    assert code == 0, printed
    store = open_store(tmp_path / "mixed.store")
    assert (store.status == VALID).all()
    assert len(store.status) == images
    assert "broken DICOM header" in printed


def test_images_are_left_out_by_a_column_of_the_manifest(hospital, tmp_path, capfd):
    root, images = hospital
    code = run(
        ["extract", "--dataset", "dicom-folder", "--root", str(root), "--key-file", "key", "--store", "some.store",
         "--encoder", "hog", "--where", "modality!=RTDOSE", "--where", "image_type!=LOCALIZER", "--workers", "1"]
    )  # fmt: skip
    printed = capfd.readouterr().out
    assert code == 0, printed
    assert "left out by modality!=RTDOSE" in printed
    modalities = open_store(tmp_path / "some.store").table.column("modality").to_pylist()
    assert len(modalities) == images - IMAGES["rtdose.dcm"]
    assert "RTDOSE" not in modalities


def test_what_is_no_image_is_counted_and_named(hospital, tmp_path):
    root, images = hospital
    collection = DicomFolder(tmp_path / "key").read(root)
    summary = collection.summary
    assert len(collection.manifest) == images
    assert summary["DICOM image files"] == len(IMAGES) + 1 + len(CAPTURED)
    assert summary["files left out, DICOM without pixels"] == 8
    assert summary["DICOM without pixels"] == (
        "12-lead ECG Waveform Storage 1, Basic Text SR Storage 1, Comprehensive SR Storage 1, "
        "MR Spectroscopy Storage 1, Media Storage Directory Storage 1, RT Plan Storage 1, "
        "RT Structure Set Storage 1, X-Ray Radiation Dose SR Storage 1"
    )
    assert summary["files left out, segmentations"] == "1"
    assert summary["files left out, videos, which no codec here reads"] == "1"
    assert summary["files left out, broken DICOM header"].startswith("3, the first: ")
    assert summary["files left out, not DICOM"] == 2
    # Their names are in what the owner keeps beside the key, and there only.
    left_out = collection.owner_rows.filter(pc.is_valid(collection.owner_rows.column("left_out")))
    assert "made/segments.dcm" in left_out.column("path").to_pylist()
    left_out = 8 + 1 + 1 + 3 + 2
    assert summary["files"] == summary["DICOM image files"] + left_out


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.100.1", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.104.1",
     "1.2.840.10008.1.2.4.106", "1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108", "1.2.840.10008.1.2.7.1"],
)  # fmt: skip
def test_a_video_in_a_table_is_one_record_with_one_reason(tmp_path, syntax):
    save(video(uid.UID(syntax), 3000), tmp_path / "loop.dcm")
    (tmp_path / "table.csv").write_text("path\nloop.dcm\n")
    collection = Table().read(tmp_path / "table.csv")
    assert collection.manifest.column("frame") == [0]
    key = "files without an image, videos, which no codec here reads"
    assert collection.summary[key] == "1, such as loop.dcm"


@pytest.mark.parametrize(
    "syntax", [uid.JPEGBaseline8Bit, uid.HTJ2K, "1.2.840.10008.1.2.4.110", uid.RLELossless]
)
def test_a_still_picture_s_syntax_is_no_video(syntax):
    assert not is_video(str(syntax))


def test_the_table_s_summary_names_what_holds_no_image(tmp_path):
    for name in ("rtplan.dcm", "CT_small.dcm"):
        shutil.copy(REAL / name, tmp_path / name)
    rows = [{"path": name} for name in ("rtplan.dcm", "CT_small.dcm")]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collection = Table().read(tmp_path / "table.jsonl")
    assert len(collection.manifest) == 2  # named in the table: kept, and fails by name
    assert collection.summary["files without an image, DICOM without pixels"] == "1, such as rtplan.dcm"
