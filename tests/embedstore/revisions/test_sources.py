"""A row holds the vector of its file: of what the file holds, whatever its name and time."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cli.main import run as embed
from embedstore.errors import StoreError
from embedstore.extraction.extract import ExtractOptions, Observer, extract
from embedstore.manifest import Manifest
from embedstore.queries.image_files import ImageFiles
from embedstore.revisions.sources import check_sources
from embedstore.store.reader import open_store
from embedstore.store.verify import verify_store
from tests.pictures import collection_of, expected_vectors, pixels_of, with_manifest, write_pictures
from tests.stores import MeanEncoder

OPTIONS = ExtractOptions(chunk_rows=4, batch_size=2, workers=1)
COUNT = 10


@pytest.fixture
def pictures(tmp_path):
    write_pictures(tmp_path / "images", range(COUNT))
    return collection_of(tmp_path / "images", COUNT)


def run(collection, store):
    lines: list[str] = []
    summary = extract(collection, store, MeanEncoder(), options=OPTIONS, observer=Observer(say=lines.append))
    return summary, lines


def with_paths(collection, paths):
    table = collection.manifest.table
    return with_manifest(
        collection, Manifest(table.set_column(table.column_names.index("path"), "path", pa.array(paths)))
    )


def vectors(store):
    return open_store(store).embeddings().vectors


def test_a_copy_with_other_times_is_no_change_and_is_digested_once(pictures, tmp_path, monkeypatch):
    run(pictures, tmp_path / "s")
    for path in pictures.root.iterdir():
        os.utime(path, (1, 1))
    summary, lines = run(pictures, tmp_path / "s")
    assert (summary.computed, summary.valid, lines) == (0, COUNT, [])
    assert verify_store(tmp_path / "s").findings == ()
    monkeypatch.setattr("embedstore.revisions.sources.digested", lambda *given: pytest.fail("digested again"))
    run(pictures, tmp_path / "s")


def test_paths_that_were_exchanged_exchange_the_vectors_though_size_and_time_are_equal(pictures, tmp_path):
    noise = [np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8) for number in (50, 51)]
    for number, pixels in enumerate(noise, start=1):
        Image.fromarray(pixels).save(pictures.root / f"image{number}.png", compress_level=0)
    for path in pictures.root.iterdir():
        os.utime(path, (1, 1))
    sizes = {(pictures.root / f"image{number}.png").stat().st_size for number in (1, 2)}
    assert len(sizes) == 1
    run(pictures, tmp_path / "s")
    before = vectors(tmp_path / "s")
    paths = pictures.manifest.column("path")
    paths[1], paths[2] = paths[2], paths[1]
    summary, _ = run(with_paths(pictures, paths), tmp_path / "s")
    assert summary.computed == 2
    np.testing.assert_array_equal(vectors(tmp_path / "s"), before[[0, 2, 1, *range(3, COUNT)]])


def test_a_file_that_moved_keeps_its_vector(pictures, tmp_path):
    run(pictures, tmp_path / "s")
    (pictures.root / "image1.png").rename(pictures.root / "moved.png")
    paths = ["moved.png" if path == "image1.png" else path for path in pictures.manifest.column("path")]
    summary, lines = run(with_paths(pictures, paths), tmp_path / "s")
    assert (summary.computed, summary.valid, lines) == (0, COUNT, ["revised, path: 1 row changed"])


def test_a_failed_file_that_was_mended_is_tried_again(pictures, tmp_path):
    (pictures.root / "image2.png").write_bytes(b"no picture")
    (pictures.root / "image3.png").unlink()
    assert run(pictures, tmp_path / "s")[0].valid == COUNT - 2
    for number in (2, 3):
        Image.fromarray(pixels_of(number)).save(pictures.root / f"image{number}.png")
    assert run(pictures, tmp_path / "s")[0].valid == COUNT
    np.testing.assert_array_equal(vectors(tmp_path / "s"), expected_vectors(COUNT).astype(np.float16))


def test_a_reader_that_was_open_says_that_images_were_computed_again(pictures, tmp_path):
    run(pictures, tmp_path / "s")
    reader = open_store(tmp_path / "s")
    Image.fromarray(pixels_of(99)).save(pictures.root / "image3.png")
    run(pictures, tmp_path / "s")
    with pytest.raises(StoreError, match="chunk 0 were computed again since this store was opened; open it"):
        reader.embeddings()


def test_images_that_the_data_set_no_longer_has_are_said(pictures, tmp_path):
    run(pictures, tmp_path / "s")
    _, lines = run(with_manifest(pictures, pictures.manifest.take(range(5))), tmp_path / "s")
    (line,) = lines
    assert line.startswith("5 images of the store are not in the data set")
    assert open_store(tmp_path / "s").rows == COUNT


def test_verify_digests_the_files_and_names_the_changed_ones(pictures, tmp_path, capsys):
    run(pictures, tmp_path / "s")
    path = pictures.root / "image4.png"
    held = path.stat()
    payload = bytearray(path.read_bytes())
    payload[-20] ^= 1
    path.write_bytes(payload)
    os.utime(path, ns=(held.st_atime_ns, held.st_mtime_ns))  # nothing but a digest can tell
    (pictures.root / "image7.png").unlink()
    store = open_store(tmp_path / "s")
    found = check_sources(store, ImageFiles().paths(store))
    assert (list(found.changed), found.missing, found.same, found.unknown) == (
        ["image4"],
        ("image7",),
        COUNT - 2,
        0,
    )
    assert embed(["verify", str(tmp_path / "s"), "--sources"]) == 1
    printed = capsys.readouterr().out
    assert "image4: the file was written again since it was read" in printed
    assert "sources: 8 images as read; 1 changed" in printed
    assert "1 missing (image7)" in printed
    embed(["verify", str(tmp_path / "s"), "--sources", "--json"])
    assert json.loads(capsys.readouterr().out)["sources"]["same"] == COUNT - 2
    assert embed(["verify", str(tmp_path / "s")]) == 0


def test_the_root_of_a_project_may_be_a_table(tmp_path, capsys, monkeypatch):
    write_pictures(tmp_path / "images", range(3))
    (tmp_path / "t.csv").write_text("path\n" + "".join(f"image{number}.png\n" for number in range(3)))
    monkeypatch.chdir(tmp_path)
    assert (
        embed(["init", "--dataset", "table", "--root", "t.csv", "--images-root", "images", "--store", "s"])
        == 0
    )
    assert embed(["extract"]) == 0
    capsys.readouterr()
    assert embed(["verify", "--sources"]) == 0
    assert "3 images as read" in capsys.readouterr().out
