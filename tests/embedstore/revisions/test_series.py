"""Slices of an MR series are shown over one range, so that a change to one is a change to all."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from embedstore.datasets.base import read_dataset
from embedstore.extraction.extract import ExtractOptions, Observer, extract
from embedstore.phantoms.lumbar import write_phantom_lumbar
from embedstore.store.reader import open_store
from embedstore.store.verify import verify_store
from tests.stores import MeanEncoder

OPTIONS = ExtractOptions(chunk_rows=16, batch_size=8, workers=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("lumbar")
    write_phantom_lumbar(root, studies=1)
    return root


@pytest.fixture
def lumbar(written, tmp_path):
    """A study of its own, which a test may change."""
    return next(shutil.copytree(written, tmp_path / "data").glob("rsna*"))


def run(root, store, options=OPTIONS):
    lines: list[str] = []
    collection = read_dataset("rsna-lumbar", root)
    summary = extract(collection, store, MeanEncoder(), options=options, observer=Observer(say=lines.append))
    return summary, lines


def brighten(path) -> None:
    """Write a slice anew whose brightest value lies far above all others of its series."""
    slice_ = pydicom.dcmread(path)
    if slice_.file_meta.TransferSyntaxUID.is_compressed:
        slice_.decompress()
    pixels = slice_.pixel_array.astype(np.uint32) * 3 + 500
    slice_.PixelData = pixels.clip(0, 4095).astype(np.uint16).tobytes()
    slice_.save_as(path)


def test_a_slice_that_was_replaced_takes_its_series_along(lumbar, tmp_path):
    records = list(read_dataset("rsna-lumbar", lumbar).manifest.records())
    mine = [record for record in records if record.series_id == records[0].series_id]
    run(lumbar, tmp_path / "s")
    brighten(lumbar / mine[0].path)
    summary, lines = run(lumbar, tmp_path / "s")
    assert summary.computed == len(mine)
    assert lines == [
        f"{len(mine)} images will be computed again: the files were changed since they were read"
    ]
    # An extraction that never saw the first slice is the reference.
    run(lumbar, tmp_path / "fresh")
    np.testing.assert_array_equal(
        open_store(tmp_path / "s").embeddings().vectors, open_store(tmp_path / "fresh").embeddings().vectors
    )
    assert open_store(tmp_path / "s").series_ranges() == open_store(tmp_path / "fresh").series_ranges()
    assert verify_store(tmp_path / "s").findings == ()


def test_a_store_of_series_is_continued_without_a_word_of_the_canary(lumbar, tmp_path):
    count = len(read_dataset("rsna-lumbar", lumbar).manifest)
    run(lumbar, tmp_path / "s", replace(OPTIONS, limit=count - 5))
    summary, lines = run(lumbar, tmp_path / "s")
    assert (summary.valid, lines) == (count, [])
