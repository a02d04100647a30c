"""Real images from end to end: the files that ship inside pydicom, and a real lumbar MRI volume."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from embedstore.datasets.base import Collection
from embedstore.encoders.hog import HogEncoder
from embedstore.extraction.extract import ExtractOptions, extract
from embedstore.manifest import manifest_from_columns
from embedstore.store.reader import FAILED, VALID, open_store
from embedstore.store.verify import verify_store
from tests.paths import PROJECT

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
VOLUME = PROJECT.parent / "shared" / "data" / "t2_lumbar.nii.gz"
OPTIONS = ExtractOptions(chunk_rows=16)


def collection_of(folder: Path, names: list[str], **columns: list[str]) -> Collection:
    return Collection(
        "test", folder, manifest_from_columns({"image_id": names, "path": names} | columns, source="test")
    )


@pytest.fixture(scope="module")
def pydicom_store(tmp_path_factory):
    """Every DICOM file inside pydicom, extracted."""
    root = tmp_path_factory.mktemp("pydicom") / "s"
    names = sorted(path.name for path in PYDICOM_FILES.glob("*.dcm"))
    extract(collection_of(PYDICOM_FILES, names), root, HogEncoder(device="cpu"), options=OPTIONS)
    return open_store(root)


def test_every_real_file_ends_with_a_vector_or_a_reason(pydicom_store):
    assert set(pydicom_store.status) == {VALID, FAILED}
    assert (pydicom_store.status == VALID).sum() > 40
    assert all(failure.message for failure in pydicom_store.failures)
    assert verify_store(pydicom_store.path).findings == ()


def test_files_without_an_image_say_so(pydicom_store):
    reasons = {pydicom_store.image_ids[failure.row]: failure.reason for failure in pydicom_store.failures}
    assert reasons["rtplan.dcm"] == "no-pixels"
    assert reasons["reportsi.dcm"] == "no-pixels"
    assert "CT_small.dcm" not in reasons
    assert "MR_small.dcm" not in reasons


def test_one_image_in_many_encodings_has_one_digest_and_one_vector(pydicom_store):
    names = [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ]
    chosen = pydicom_store.select(names)
    content = pydicom_store.content_sha256()[chosen.rows]
    assert len(np.unique(content, axis=0)) == 1
    assert len(np.unique(chosen.vectors, axis=0)) == 1


def test_a_ct_slice_has_the_vector_of_its_three_windows_worked_out_apart(pydicom_store):
    slice_ = pydicom.dcmread(PYDICOM_FILES / "CT_small.dcm")
    units = slice_.pixel_array.astype(np.float64) * slice_.RescaleSlope + slice_.RescaleIntercept
    # FACTS: R (-1024, 1024), G (-135, 215), B (0, 80), rounded to uint8.
    windows = [(-1024, 1024), (-135, 215), (0, 80)]
    rgb = [np.rint((np.clip(units, low, high) - low) / (high - low) * 255) for low, high in windows]
    picture = Image.fromarray(np.stack(rgb, axis=-1).astype(np.uint8))
    pixels = np.asarray(picture.resize((444, 444), Image.Resampling.BILINEAR))
    expected = HogEncoder(device="cpu").encode(pixels[None])[0].astype(np.float16)
    np.testing.assert_array_equal(pydicom_store.vector("CT_small.dcm"), expected)


@pytest.fixture(scope="module")
def lumbar(tmp_path_factory):
    """The real volume, written as a DICOM series; returns its folder, names and slices (rows, columns)."""
    if not VOLUME.exists():
        pytest.skip("the lumbar volume is not here: it lies beside the project, not in it")
    nibabel = pytest.importorskip("nibabel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        volume = np.asarray(nibabel.load(VOLUME).dataobj)
    axis = int(np.argmin(volume.shape))
    slices = np.moveaxis(volume, axis, 0).astype(np.uint16)
    folder = tmp_path_factory.mktemp("lumbar")
    names = []
    for number, pixels in enumerate(slices):
        names.append(f"{number}.dcm")
        write_slice(folder / names[-1], pixels, number)
    return folder, names, slices


def write_slice(path: Path, pixels: np.ndarray, number: int) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, f"1.2.3.{number + 1}"
    dataset.Modality, dataset.SeriesInstanceUID = "MR", "1.2.3.99"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def mr_collection(folder: Path, names: list[str]) -> Collection:
    return collection_of(folder, names, modality=["MR"] * len(names), series_id=["lumbar"] * len(names))


def test_a_real_mr_series_is_scaled_by_the_percentiles_of_all_its_slices(lumbar, tmp_path):
    folder, names, slices = lumbar
    extract(mr_collection(folder, names), tmp_path / "s", HogEncoder(device="cpu"), options=OPTIONS)
    store = open_store(tmp_path / "s")
    assert (store.status == VALID).all()
    low, high = np.percentile(slices, [1, 99])
    assert store.series_ranges()["lumbar"] == pytest.approx((low, high))
    middle = len(slices) // 2
    scaled = np.rint(np.clip((slices[middle].astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(
        np.uint8
    )
    rows, columns = scaled.shape
    side = max(rows, columns)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - rows) // 2, (side - columns) // 2
    square[top : top + rows, left : left + columns] = scaled
    pixels = np.asarray(Image.fromarray(square).resize((444, 444), Image.Resampling.BILINEAR))
    expected = HogEncoder(device="cpu").encode(pixels[None])[0].astype(np.float16)
    np.testing.assert_array_equal(store.vector(names[middle]), expected)


def test_a_slice_has_one_vector_alone_among_its_series_and_in_a_later_part(lumbar, tmp_path):
    folder, names, _ = lumbar
    whole = mr_collection(folder, names)
    extract(whole, tmp_path / "whole", HogEncoder(device="cpu"), options=OPTIONS)
    limited = ExtractOptions(chunk_rows=2, limit=3)
    extract(whole, tmp_path / "parts", HogEncoder(device="cpu"), options=limited)
    extract(whole, tmp_path / "parts", HogEncoder(device="cpu"), options=OPTIONS)
    assert len(open_store(tmp_path / "parts").parts) == 2
    np.testing.assert_array_equal(
        open_store(tmp_path / "parts").embeddings().vectors,
        open_store(tmp_path / "whole").embeddings().vectors,
    )
