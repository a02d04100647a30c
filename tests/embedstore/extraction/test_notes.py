"""What was mended to show an image stands in its receipt and is said at the end, as are ranges by kind of value."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydicom import uid

from cli.jobs.extract_store import EncoderChoice, ExtractJob, extract_store
from cli.main import run
from embedstore.datasets.base import Collection
from embedstore.encoders.hog import HogEncoder
from embedstore.errors import IdentityMismatch, Note, words_of_note
from embedstore.extraction.extract import Choose, ExtractOptions, Observer, extract
from embedstore.manifest import manifest_from_columns
from embedstore.store.part_reader import notes_of
from embedstore.store.reader import open_store
from tests.image_files import dataset, dicom_bytes
from tests.stores import MeanEncoder

RAMP = np.add.outer(np.arange(32) * 60, np.arange(32) * 50).astype(np.uint16)
OPTIONS = ExtractOptions(chunk_rows=4, batch_size=3, workers=1)
# Image -> what is odd about it; its notes are known by hand.
IMAGES = {
    "plain": ({}, set()),
    "zero": ({"WindowCenter": 100, "WindowWidth": 0}, {Note.WINDOW_DROPPED}),
    "beyond": ({"WindowCenter": 30000, "WindowWidth": 10}, {Note.WINDOW_DROPPED}),
    "shape": ({"PresentationLUTShape": "INVERSE", "PixelSpacing": [2, 1]}, {Note.SHAPE_CONTRADICTS, Note.MADE_SQUARE}),
    "bits": ({"HighBit": 15}, {Note.HIGH_BIT, Note.BITS_OUTSIDE}),
    "map": (
        {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "MGML"}, {Note.NOT_HOUNSFIELD},
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, (elements, _) in IMAGES.items():
        content = dicom_bytes(dataset(RAMP, bits_stored=12, **elements))
        (tmp_path / "images" / f"{name}.dcm").write_bytes(content)
    return tmp_path / "images"


def collection(folder, names=IMAGES, **columns):
    paths = [f"{name}.dcm" for name in names]
    columns = {"image_id": list(names), "path": paths, **columns}
    return Collection("test", folder, manifest_from_columns(columns, source="test"))


def notes_in(store):
    return notes_of(open_store(store).offsets())


def rows_of(note):
    return [row for row, (_, notes) in enumerate(IMAGES.values()) if note in notes]


def test_notes_stand_in_receipts_and_are_counted_in_the_summary(folder, tmp_path):
    summary = extract(collection(folder), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    expected = {note.value: rows_of(note) for note in Note if rows_of(note)}
    assert notes_in(tmp_path / "s") == dict(sorted(expected.items()))
    assert summary.notes == {code: len(rows) for code, rows in expected.items()}
    assert summary.valid == len(IMAGES)
    # Said of the store, whoever computed it.
    again = extract(collection(folder), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    assert (again.computed, again.notes) == (0, summary.notes)


def test_a_receipt_without_notes_does_not_mention_them(folder, tmp_path):
    extract(collection(folder, ["plain"]), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    receipt = json.loads((tmp_path / "s/parts/0000/receipts/000000.json").read_text())
    assert "notes" not in receipt


def test_notes_of_rows_that_are_not_tried_again_are_kept(folder, tmp_path):
    zero = (folder / "zero.dcm").read_bytes()
    (folder / "zero.dcm").unlink()
    first = extract(collection(folder), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    assert (first.failed, first.notes["window-dropped"]) == ({"missing": 1}, 1)
    (folder / "zero.dcm").write_bytes(zero)
    extract(collection(folder), tmp_path / "s", MeanEncoder(), options=OPTIONS, choose=Choose.NEW_OR_FAILED)
    extract(collection(folder), tmp_path / "whole", MeanEncoder(), options=OPTIONS)
    store, whole = open_store(tmp_path / "s"), open_store(tmp_path / "whole")
    assert notes_in(tmp_path / "s") == notes_in(tmp_path / "whole")
    np.testing.assert_array_equal(store.embeddings().vectors, whole.embeddings().vectors)


def test_the_command_line_says_notes_with_their_meaning(folder, tmp_path, capsys):
    (tmp_path / "table.csv").write_text("path\n" + "".join(f"images/{name}.dcm\n" for name in IMAGES))
    arguments = ["extract", "--dataset", "table", "--root", str(tmp_path / "table.csv"), "--device", "cpu"]
    store = ["--store", str(tmp_path / "s")]
    assert run([*arguments, *store]) == 0
    words = Note.WINDOW_DROPPED.words
    assert f"  note, window-dropped: 2 images: {words}\n" in capsys.readouterr().out
    assert run([*arguments, *store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"]["window-dropped"] == 2
    assert run(["info", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr().out
    assert f"  note, window-dropped: 2 images, such as images/zero.dcm: {words}\n" in shown
    assert "pad, 444 px, square pixels" in shown
    assert run(["info", str(tmp_path / "s"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"]["high-bit"] == {
        "images": 1, "first": "images/bits.dcm", "meaning": Note.HIGH_BIT.words,
    }  # fmt: skip


def test_every_note_has_words_and_one_of_a_later_version_too():
    assert all(note.words for note in Note)
    assert "later version" in words_of_note("brand-new")


def job(folder, store, names):
    return ExtractJob(
        collection=collection(folder, names), store=store, encoder=EncoderChoice(name="hog"), devices="cpu",
        options=OPTIONS,
    )  # fmt: skip


def test_a_store_from_before_square_pixels_is_continued_as_it_was_begun(folder, tmp_path):
    old = HogEncoder(device="cpu", square_pixels=False)
    extract(collection(folder, ["plain"]), tmp_path / "s", old, options=OPTIONS)
    with pytest.raises(IdentityMismatch, match="square_pixels"):
        extract(
            collection(folder, ["plain", "shape"]), tmp_path / "s", HogEncoder(device="cpu"), options=OPTIONS
        )
    summary = extract_store(job(folder, tmp_path / "s", ["plain", "shape"]), observer=Observer())
    store = open_store(tmp_path / "s")
    assert store.identity == old.identity
    assert (summary.valid, Note.MADE_SQUARE.value in summary.notes) == (2, False)
    fresh = extract_store(job(folder, tmp_path / "new", ["plain", "shape"]), observer=Observer())
    assert fresh.notes[Note.MADE_SQUARE.value] == 1
    assert open_store(tmp_path / "new").identity == HogEncoder(device="cpu").identity
    assert not np.array_equal(open_store(tmp_path / "new").vector("shape"), store.vector("shape"))


def mr_files(folder):
    """Write a series of magnitude, phase and a capture by turns; return names and pixels of each kind."""
    rng = np.random.default_rng(4)
    made = {"magnitude": [], "phase": [], "capture": []}
    for number in range(9):
        kind = list(made)[number % 3]
        low, high = {"magnitude": (0, 900), "phase": (0, 4096), "capture": (3000, 4000)}[kind]
        pixels = rng.integers(low, high, (32, 32)).astype(np.uint16)
        made[kind].append(pixels)
        ds = dataset(pixels, bits_stored=12, Modality="MR", SeriesInstanceUID="1.2")
        ds.ImageType = ["ORIGINAL", "PRIMARY", "P" if kind == "phase" else "M"]
        if kind == "capture":
            ds.SOPClassUID = uid.SecondaryCaptureImageStorage
        (folder / f"{number}.dcm").write_bytes(dicom_bytes(ds))
    return [str(number) for number in range(9)], made


def test_a_series_has_a_range_for_each_kind_of_value(tmp_path):
    names, made = mr_files(tmp_path)
    columns = {"modality": ["MR"] * 9, "series_id": ["s"] * 9}
    extract(collection(tmp_path, names, **columns), tmp_path / "s", MeanEncoder(), options=OPTIONS)
    ranges = open_store(tmp_path / "s").series_ranges()
    assert set(ranges) == {"s", "s\tPHASE"}
    assert ranges["s"] == pytest.approx(np.percentile(made["magnitude"], [1, 99]))
    assert ranges["s\tPHASE"] == pytest.approx(np.percentile(made["phase"], [1, 99]))
    # A slice has the same vector when it comes later, in a part of its own.
    first = ExtractOptions(chunk_rows=4, limit=2, workers=1)
    for options in (first, OPTIONS):
        extract(collection(tmp_path, names, **columns), tmp_path / "parts", MeanEncoder(), options=options)
    np.testing.assert_array_equal(
        open_store(tmp_path / "parts").embeddings().vectors, open_store(tmp_path / "s").embeddings().vectors
    )
