"""A table against its own files: a record per frame, and the modality that the pixels have."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, MRImageStorage, UltrasoundMultiFrameImageStorage

from embedstore.datasets.table import Table
from embedstore.encoders.hog import HogEncoder
from embedstore.errors import DataError
from embedstore.extraction.extract import extract
from embedstore.headers.modality_words import CODES, modality_code
from embedstore.store.reader import VALID, open_store
from tests.dicom_objects import dicom_object, save, with_pixels

GREY = np.add.outer(np.arange(24), np.arange(20)).astype(np.uint16)


def write_pages(path, count, **options):
    pages = [Image.fromarray((GREY * (page + 1)).astype(np.uint8)) for page in range(count)]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)


def write_ct(path, modality="CT"):
    made = dicom_object(CTImageStorage, modality, RescaleSlope="1", RescaleIntercept="-1024")
    save(with_pixels(made, GREY[None] * 30), path)


def write_loop(path, frames):
    made = dicom_object(UltrasoundMultiFrameImageStorage, "US")
    save(with_pixels(made, np.stack([GREY + frame for frame in range(frames)]).astype(np.uint8)), path)


def read(folder, text, **options):
    (folder / "table.csv").write_text(text)
    return Table(**options).read(folder / "table.csv")


def test_each_page_and_frame_is_a_record_with_the_row_s_cells(tmp_path):
    write_pages(tmp_path / "a.tif", 3)
    write_loop(tmp_path / "b.dcm", 2)
    write_pages(tmp_path / "c.png", 1)
    collection = read(
        tmp_path, "path,patient_id,sign\na.tif,P1,yes\nb.dcm,P2,no\nc.png,P3,no\n", label=["sign"]
    )
    manifest = collection.manifest
    assert manifest.column("image_id") == ["a.tif", "a.tif#1", "a.tif#2", "b.dcm", "b.dcm#1", "c.png"]
    assert manifest.column("path") == ["a.tif"] * 3 + ["b.dcm"] * 2 + ["c.png"]
    assert manifest.column("frame") == [0, 1, 2, 0, 1, 0]
    assert manifest.column("patient_id") == ["P1"] * 3 + ["P2"] * 2 + ["P3"]
    labels = dict(
        zip(
            *(collection.tasks[0].labels.column(name).to_pylist() for name in ("unit_id", "sign")),
            strict=True,
        )
    )
    assert labels == {
        "a.tif": "yes",
        "a.tif#1": "yes",
        "a.tif#2": "yes",
        "b.dcm": "no",
        "b.dcm#1": "no",
        "c.png": "no",
    }
    assert collection.summary["images"] == 6
    assert collection.summary["files of several frames"] == "2 with 5 frames"


def test_every_page_gets_a_vector_of_its_own(tmp_path):
    write_pages(tmp_path / "a.tif", 3)
    collection = read(tmp_path, "path\na.tif\n")
    extract(collection, tmp_path / "s", HogEncoder(device="cpu"))
    store = open_store(tmp_path / "s")
    assert (store.status == VALID).all()
    assert len(np.unique(store.content_sha256(), axis=0)) == 3


def test_a_frame_that_the_table_names_is_the_only_one(tmp_path):
    write_pages(tmp_path / "a.tif", 3)
    write_pages(tmp_path / "b.tif", 2)
    manifest = read(tmp_path, "path,frame\na.tif,1\nb.tif,\n").manifest
    assert manifest.column("image_id") == ["a.tif#1", "b.tif", "b.tif#1"]


def test_ids_of_the_table_are_told_apart_by_frame(tmp_path):
    write_pages(tmp_path / "a.tif", 2)
    manifest = read(tmp_path, "path,image_id\na.tif,x\n").manifest
    assert manifest.column("image_id") == ["x", "x#1"]


@pytest.mark.parametrize(
    "word", ["ct", "CT scan", "Computed Tomography", " Ct ", "CT-Images", "computed tomography (CT)", ""]
)
def test_a_word_for_the_modality_gives_the_vectors_of_the_code(tmp_path, word):
    write_ct(tmp_path / "c.dcm")
    stores = {}
    for name, cell in (("code", "CT"), ("word", word)):
        collection = read(tmp_path, f'path,modality\nc.dcm,"{cell}"\n')
        assert collection.manifest.column("modality") == ["CT"]
        extract(collection, tmp_path / name, HogEncoder(device="cpu"))
        stores[name] = open_store(tmp_path / name).embeddings().vectors
    np.testing.assert_array_equal(stores["code"], stores["word"])


def test_the_summary_says_what_words_were_read_as(tmp_path):
    text = "path,modality\n1.png,MRI\n2.png,mri\n3.png,MRI\n4.png,MR\n"
    collection = read(tmp_path, text)
    assert collection.manifest.column("modality") == ["MR"] * 4
    assert collection.summary["words read as modality"] == "'MRI' as MR 2, 'mri' as MR 1"
    assert "modality contradicts the header" not in collection.summary


def test_the_header_wins_over_the_table_and_it_is_said(tmp_path):
    write_ct(tmp_path / "a.dcm")
    write_ct(tmp_path / "b.dcm")
    collection = read(tmp_path, "path,modality\na.dcm,X-Ray\nb.dcm,CT\n")
    assert collection.manifest.column("modality") == ["CT", "CT"]
    assert collection.summary["modality contradicts the header"] == (
        "1 images, such as a.dcm: DX in the table, CT in the file, which was followed"
    )


def test_without_a_column_the_header_s_modality_is_kept(tmp_path):
    save(with_pixels(dicom_object(MRImageStorage, "MR"), GREY[None]), tmp_path / "a.dcm")
    write_pages(tmp_path / "b.png", 1)
    assert read(tmp_path, "path\na.dcm\nb.png\n").manifest.column("modality") == ["MR", None]


@pytest.mark.parametrize("word", ["PET/CT", "T2", "chest", "7", "X"])
def test_a_word_without_a_code_is_refused_with_the_list(tmp_path, word):
    with pytest.raises(
        DataError, match=rf"line 3: modality must be a DICOM code \(.*CT.*\) .*found '{word}'"
    ) as refusal:
        read(tmp_path, f"path,modality\n1.png,CT\n2.png,{word}\n")
    assert "computed tomography = CT" in str(refusal.value)


@pytest.mark.parametrize("word", ["unknown", "N/A", "nan", "None", "-"])
def test_a_word_for_no_modality_is_an_empty_cell(tmp_path, word):
    assert read(tmp_path, f"path,modality\n1.png,{word}\n").manifest.column("modality") == [None]


@pytest.mark.parametrize(
    ("text", "code"),
    [("MRI", "MR"), ("Mr", "MR"), ("nuclear magnetic resonance", None), ("X-Ray", "DX"), ("x ray", "DX"), ("XR", "DX"),
     ("Radiograph (X-ray)", "DX"), ("CR", "CR"), ("ultrasound", "US"), ("us", "US"), ("Mammography", "MG"),
     ("PET scan", "PT"), ("PET", "PT"), ("CAT scan", "CT"), ("fundus photograph", "OP"), ("angiography", "XA"),
     ("Fluoroscopy", "RF"), ("SPECT", "NM"), ("MR Imaging", "MR"), ("Other", "OT"), ("CT/MR", None), ("", None)],
)  # fmt: skip
def test_words_mean_these_codes(text, code):
    assert modality_code(text) == code


def test_every_code_means_itself_in_any_case():
    assert {code: modality_code(code.lower()) for code in CODES} == {code: code for code in CODES}
